//! `docs/audiences.md` says what is so.

use std::{fs, path::Path};

use campanile_push::expression::Expression;

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join("docs/audiences.md")).unwrap()
}

#[test]
fn every_expression_is_one_in_canonical_form() {
    let page = page();
    let blocks = page.split("```audience\n").skip(1);
    let lines: Vec<&str> = blocks
        .flat_map(|block| block.split("```").next().unwrap().lines())
        .collect();
    assert!(lines.len() > 10);
    for line in lines {
        let expression = Expression::parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(expression.to_string(), line);
    }
}

#[test]
fn every_mistake_is_told_in_these_words() {
    let page = page();
    let table = page.split("| expression | mistake |").nth(1).unwrap();
    let rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 3);
    for row in rows {
        let (expression, mistake) = row
            .trim_start_matches("| `")
            .trim_end_matches(" |")
            .split_once("` | ")
            .unwrap();
        let error = Expression::parse(expression).unwrap_err();
        assert_eq!(error.to_string(), mistake.replace("\\|", "|"));
    }
}
