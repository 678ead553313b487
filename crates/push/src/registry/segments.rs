//! Segments: expressions that are saved under a name. A push to one takes the expression as it is then.

use prost::Message;

use super::{Context, Planned, Refusal, decode};
use crate::{
    app::AppName,
    audience,
    device::names,
    expression::Expression,
    fields::{Fields, invalid},
    json,
    request::Invalid,
    rows::{Key, Range, Row, Scope, Table},
    store::Unavailable,
};

/// Segments that an app may have.
pub const MAX_SEGMENTS: u64 = 1000;

#[derive(Clone, PartialEq, Message)]
struct SegmentRecord {
    /// The canonical text.
    #[prost(string, tag = "1")]
    expression: String,
    #[prost(uint64, tag = "2")]
    created_ms: u64,
    #[prost(uint64, tag = "3")]
    updated_ms: u64,
}

/// A saved expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// Whom it is about.
    pub expression: Expression,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds of its last change.
    pub updated_ms: u64,
}

fn row_of(segment: &str) -> Key {
    Key::new(Table::Segment, segment)
}

fn missing(segment: &str) -> Refusal {
    Refusal::Missing {
        what: "segment",
        name: segment.to_owned(),
    }
}

fn check_name(segment: &str) -> Result<(), Invalid> {
    let check = names::SEGMENT.check(segment);
    check.map_err(|bad| invalid("", bad.to_string()))
}

fn segment_of(name: String, record: SegmentRecord) -> Result<Segment, Unavailable> {
    let expression = Expression::parse_canonical(&record.expression)
        .map_err(|bad| Unavailable(format!("segment {name:?} is damaged: {bad}").into()))?;
    Ok(Segment {
        name,
        expression,
        created_ms: record.created_ms,
        updated_ms: record.updated_ms,
    })
}

/// Reads `{"expr": ".."}`.
pub fn parse(body: &[u8]) -> Result<Expression, Invalid> {
    const KNOWN: [&str; 1] = ["expr"];
    let document = json::read(body)?;
    let mut fields = Fields::of("", &document)?;
    let expression = fields.required("expr", "whom the segment is about, an expression")?;
    fields.no_others(&KNOWN)?;
    audience::expression("/expr", expression)
}

/// A segment.
pub fn get(context: &Context<'_>, app: &AppName, segment: &str) -> Result<Segment, Refusal> {
    check_name(segment)?;
    let (record, _) = context.record(&Scope::App(app.clone()), &row_of(segment))?;
    let record = record.ok_or_else(|| missing(segment))?;
    Ok(segment_of(segment.to_owned(), record)?)
}

/// Saves an expression; answers whether the segment is new.
pub fn put(
    context: &Context<'_>,
    app: &AppName,
    segment: &str,
    expression: &Expression,
) -> Result<Planned<(Segment, bool)>, Refusal> {
    check_name(segment)?;
    let scope = Scope::App(app.clone());
    let (before, version) = context.record::<SegmentRecord>(&scope, &row_of(segment))?;
    let created = before.is_none();
    let record = SegmentRecord {
        expression: expression.to_string(),
        created_ms: before.as_ref().map_or(context.now_ms, |it| it.created_ms),
        updated_ms: context.now_ms,
    };
    if let Some(before) = before
        && before.expression == record.expression
    {
        let answer = segment_of(segment.to_owned(), before)?;
        return Ok(Planned::nothing((answer, created)));
    }
    let change = context
        .change(scope)
        .expect(row_of(segment), version)
        .put(row_of(segment), record.encode_to_vec())
        .at_most(Table::Segment, MAX_SEGMENTS);
    let answer = segment_of(segment.to_owned(), record)?;
    Ok(Planned::change(change, (answer, created)))
}

/// Removes a segment. Pushes that were made to it go on.
pub fn delete(context: &Context<'_>, app: &AppName, segment: &str) -> Result<Planned<()>, Refusal> {
    check_name(segment)?;
    let scope = Scope::App(app.clone());
    let (row, version) = context.row(&scope, &row_of(segment))?;
    if row.is_none() {
        return Err(missing(segment));
    }
    let change = context
        .change(scope)
        .expect(row_of(segment), version)
        .remove(row_of(segment));
    Ok(Planned::change(change, ()))
}

/// Segments by name, from the first after `after`, and whether there are more.
pub fn list(
    context: &Context<'_>,
    app: &AppName,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Segment>, bool), Unavailable> {
    let range = Range {
        scope: Scope::App(app.clone()),
        table: Table::Segment,
        prefix: String::new(),
        after: after.map(str::to_owned),
        limit,
    };
    let (rows, more) = context.reader.rows(&range, context.now_ms)?;
    let segment = |row: Row| segment_of(row.name, decode(&row.value, Table::Segment)?);
    let segments = rows.into_iter().map(segment).collect::<Result<_, _>>()?;
    Ok((segments, more))
}

#[cfg(test)]
mod tests;
