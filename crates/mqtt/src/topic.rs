//! Topic names and topic filters, MQTT 5.0 sections 4.7 and 4.8.2.

/// The longest name or filter in bytes; its length is two bytes on the wire.
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// Why a topic name is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
#[error("{}", self.rule())]
pub enum NameError {
    Empty,
    Null,
    TooLong,
    Wildcard,
}

impl NameError {
    /// The rule that was broken, with its id.
    pub const fn rule(self) -> &'static str {
        match self {
            NameError::Empty => "must not be empty [MQTT-4.7.3-1]",
            NameError::Null => "must not contain U+0000 [MQTT-4.7.3-2]",
            NameError::TooLong => "must not be longer than 65535 bytes [MQTT-4.7.3-3]",
            NameError::Wildcard => "must not contain the wildcards \"+\" and \"#\" [MQTT-3.3.2-2]",
        }
    }
}

/// Why a topic filter is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
#[error("{}", self.rule())]
pub enum FilterError {
    Empty,
    Null,
    TooLong,
    MultiLevelNotLast,
    MultiLevelNotWhole,
    SingleLevelNotWhole,
    ShareNameEmpty,
    ShareNameWildcard,
    ShareFilterMissing,
}

impl FilterError {
    /// The rule that was broken, with its id.
    pub const fn rule(self) -> &'static str {
        match self {
            FilterError::Empty => "must not be empty [MQTT-4.7.3-1]",
            FilterError::Null => "must not contain U+0000 [MQTT-4.7.3-2]",
            FilterError::TooLong => "must not be longer than 65535 bytes [MQTT-4.7.3-3]",
            FilterError::MultiLevelNotLast => "\"#\" must be the last level [MQTT-4.7.1-1]",
            FilterError::MultiLevelNotWhole => "\"#\" must occupy an entire level [MQTT-4.7.1-1]",
            FilterError::SingleLevelNotWhole => "\"+\" must occupy an entire level [MQTT-4.7.1-2]",
            FilterError::ShareNameEmpty => {
                "the share name must have at least one character [MQTT-4.8.2-1]"
            }
            FilterError::ShareNameWildcard => {
                "the share name must not contain \"+\" or \"#\" [MQTT-4.8.2-2]"
            }
            FilterError::ShareFilterMissing => {
                "\"/\" and a topic filter must follow the share name [MQTT-4.8.2-2]"
            }
        }
    }
}

/// Checks that `name` may stand in a PUBLISH: not empty, no wildcards, no U+0000, at most 65535 bytes.
pub fn validate_name(name: &str) -> Result<(), NameError> {
    // One pass without early exit, which the compiler turns into wide compares; topics are short.
    let suspect = name
        .bytes()
        .fold(false, |found, byte| found | matches!(byte, 0 | b'+' | b'#'));
    match name.len() {
        0 => Err(NameError::Empty),
        len if len > MAX_TOPIC_BYTES => Err(NameError::TooLong),
        _ if !suspect => Ok(()),
        _ if name.contains('\0') => Err(NameError::Null),
        _ => Err(NameError::Wildcard),
    }
}

/// Checks that `filter` may stand in a SUBSCRIBE. Filters that begin with `$share/` also obey the rules of
/// [`parse_shared`].
pub fn validate_filter(filter: &str) -> Result<(), FilterError> {
    match filter.len() {
        0 => return Err(FilterError::Empty),
        len if len > MAX_TOPIC_BYTES => return Err(FilterError::TooLong),
        _ if filter.contains('\0') => return Err(FilterError::Null),
        _ => {}
    }
    match parse_shared(filter)? {
        Some((_, shared)) => validate_wildcards(shared),
        None => validate_wildcards(filter),
    }
}

fn validate_wildcards(filter: &str) -> Result<(), FilterError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "#" if levels.peek().is_some() => return Err(FilterError::MultiLevelNotLast),
            "#" | "+" => {}
            _ if level.contains('#') => return Err(FilterError::MultiLevelNotWhole),
            _ if level.contains('+') => return Err(FilterError::SingleLevelNotWhole),
            _ => {}
        }
    }
    Ok(())
}

/// Splits `$share/group/filter` into `(group, filter)`; `None` if `filter` is not of a shared subscription.
///
/// The wildcards of the inner filter are not looked at; [`validate_filter`] does. Shared subscriptions are a part of 5.0; in
/// earlier versions a server may give them the same meaning, since `$` topics are the server's there.
/// MQTT 5.0 section 4.8.2.
pub fn parse_shared(filter: &str) -> Result<Option<(&str, &str)>, FilterError> {
    let Some(rest) = filter.strip_prefix("$share/") else {
        return Ok(None);
    };
    let (group, inner) = rest.split_once('/').unwrap_or((rest, ""));
    if group.is_empty() {
        Err(FilterError::ShareNameEmpty)
    } else if group.contains(['+', '#']) {
        Err(FilterError::ShareNameWildcard)
    } else if inner.is_empty() {
        Err(FilterError::ShareFilterMissing)
    } else {
        Ok(Some((group, inner)))
    }
}

/// Whether the topic `name` matches `filter`; both must be valid, and a shared filter without its `$share/group/`.
///
/// A leading wildcard does not match a name that begins with `$` [MQTT-4.7.2-1].
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = name.split('/');
    let mut filters = filter.split('/');
    loop {
        match (filters.next(), names.next()) {
            // `a/#` matches its parent `a` too.
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter), Some(name)) if filter == name => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether `filter` has a wildcard.
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// The number of levels of a name or filter, at least 1.
pub fn levels(topic: &str) -> usize {
    topic.bytes().filter(|&byte| byte == b'/').count() + 1
}
