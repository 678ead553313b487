//! Several pushes in one request: `{"pushes": [{"audience": .., ..}, ..]}`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Invalid;
use crate::{
    fields::{Fields, invalid, wrong_kind},
    json::{self, Node},
};

/// Pushes that one request may have.
pub const MAX_PUSHES: usize = 1000;

/// The requests in a body, 1..=[`MAX_PUSHES`], each as it was written. They are not checked yet.
pub fn split(body: &[u8]) -> Result<Vec<&str>, Invalid> {
    #[derive(Deserialize)]
    struct Batch<'b> {
        #[serde(borrow)]
        pushes: Vec<&'b RawValue>,
    }
    let document = json::read(body)?;
    let mut fields = Fields::of("", &document)?;
    let pushes = fields.required("pushes", "an array of pushes")?;
    fields.no_others(&["pushes"])?;
    let Node::List(pushes) = pushes else {
        return Err(wrong_kind("/pushes", "an array of pushes", pushes));
    };
    match pushes.len() {
        1..=MAX_PUSHES => {}
        0 => {
            return Err(invalid(
                "/pushes",
                "the array is empty: send 1 to 1000 pushes",
            ));
        }
        many => {
            let detail = format!("{many} pushes: send at most {MAX_PUSHES} at a time");
            return Err(invalid("/pushes", detail));
        }
    }
    let batch: Batch<'_> = serde_json::from_slice(body).expect("the body was read before");
    Ok(batch.pushes.into_iter().map(RawValue::get).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Fault;

    #[test]
    fn requests_are_split_as_they_were_written() {
        let body = br#"{"pushes": [{"a": 1.50}, 7 ,{}]}"#;
        assert_eq!(split(body), Ok(vec![r#"{"a": 1.50}"#, "7", "{}"]));
    }

    #[test]
    fn a_batch_has_one_to_a_thousand() {
        let of = |count: usize| format!("{{\"pushes\":[{}]}}", vec!["{}"; count].join(","));
        assert_eq!(split(of(1000).as_bytes()).map(|all| all.len()), Ok(1000));
        for body in [of(0), of(1001), r#"{"pushes": 1}"#.into()] {
            let invalid = split(body.as_bytes()).unwrap_err();
            assert_eq!(invalid.fault, Fault::InvalidField);
            assert_eq!(invalid.field.as_deref(), Some("/pushes"));
        }
        assert_eq!(split(b"{}").unwrap_err().fault, Fault::MissingField);
    }
}
