//! Requests in the words of other push services.
//!
//! A field that means something here is mapped to our own request; every other is refused by its name: a message that arrives without what
//! the sender relied on is worse than an error.

use serde_json::{Map, Value, json};

use crate::json;

pub mod fcm;
pub mod jpush;

/// A push in our own words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapped {
    /// The field `audience`.
    pub audience: Value,
    /// The field `notification`.
    pub notification: Map<String, Value>,
    /// The field `data`.
    pub data: Map<String, Value>,
    /// `options.ttl`, in seconds.
    pub ttl_seconds: Option<u64>,
    /// `options.collapse_key`.
    pub collapse_key: Option<String>,
    /// `options.priority`.
    pub priority: Option<&'static str>,
    /// `options.pace.over`, in seconds.
    pub pace_over_seconds: Option<u64>,
    /// Only check it.
    pub validate_only: bool,
    /// What makes a retry harmless.
    pub idempotency_key: Option<String>,
}

impl Mapped {
    /// The body of our own request, which checks the values.
    pub fn to_json(&self) -> String {
        let mut body = json!({"audience": self.audience});
        let mut options = Map::new();
        for (name, value) in [
            ("ttl", self.ttl_seconds.map(Value::from)),
            ("collapse_key", self.collapse_key.clone().map(Value::from)),
            ("priority", self.priority.map(Value::from)),
            (
                "pace",
                self.pace_over_seconds.map(|over| json!({"over": over})),
            ),
        ] {
            options.extend(value.map(|value| (name.to_owned(), value)));
        }
        for (name, object) in [
            ("notification", &self.notification),
            ("data", &self.data),
            ("options", &options),
        ] {
            if !object.is_empty() {
                body[name] = Value::Object(object.clone());
            }
        }
        body.to_string()
    }
}

/// A field at fault, by its path in the sender's words, such as `message.android.ttl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path.
    pub field: String,
    /// What is wrong.
    pub description: String,
}

/// Reads a body, collecting what is wrong with it.
struct Reader {
    violations: Vec<Violation>,
}

/// The fields of an object that nobody has asked for yet.
struct Object {
    path: String,
    left: Map<String, Value>,
}

impl Reader {
    /// The body's object. Refuses what our own API refuses: names that occur twice, too much nesting.
    fn open(body: &[u8]) -> Result<(Reader, Object), Violation> {
        let bad = |description: String| Violation {
            field: String::new(),
            description,
        };
        json::read(body).map_err(|refused| bad(crate::request::Invalid::from(refused).detail))?;
        match serde_json::from_slice(body) {
            Ok(Value::Object(left)) => Ok((
                Reader {
                    violations: Vec::new(),
                },
                Object {
                    path: String::new(),
                    left,
                },
            )),
            Ok(_) => Err(bad("the body must be an object".into())),
            Err(error) => Err(bad(error.to_string())),
        }
    }

    fn refuse(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.violations.push(Violation {
            field: field.into(),
            description: description.into(),
        });
    }

    fn finish<T>(self, value: T) -> Result<T, Vec<Violation>> {
        match self.violations.is_empty() {
            true => Ok(value),
            false => Err(self.violations),
        }
    }

    /// The object in a field; a null is an absent field.
    fn object(&mut self, parent: &mut Object, name: &str) -> Option<Object> {
        let path = parent.path_of(name);
        match parent.take(name)? {
            Value::Object(left) => Some(Object { path, left }),
            _ => {
                self.refuse(path, "must be an object");
                None
            }
        }
    }

    fn text(&mut self, parent: &mut Object, name: &str) -> Option<String> {
        match parent.take(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.refuse(parent.path_of(name), "must be a string");
                None
            }
        }
    }

    fn whole(&mut self, parent: &mut Object, name: &str) -> Option<u64> {
        let value = parent.take(name)?;
        let whole = value.as_u64();
        if whole.is_none() {
            self.refuse(parent.path_of(name), "must be a whole number");
        }
        whole
    }

    /// Strings, at least one.
    fn texts(&mut self, parent: &mut Object, name: &str) -> Option<Vec<String>> {
        let value = parent.take(name)?;
        let texts = value.as_array().and_then(|items| {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        match texts {
            Some(texts) if !texts.is_empty() => Some(texts),
            _ => {
                self.refuse(parent.path_of(name), "must be a list of strings, not empty");
                None
            }
        }
    }

    /// Refuses what is left, by name.
    fn close(&mut self, object: Object) {
        for (name, value) in &object.left {
            if !value.is_null() {
                self.refuse(object.path_of(name), "is not supported here");
            }
        }
    }

    /// Two fields that say the same thing must not differ.
    fn agree<T: PartialEq>(
        &mut self,
        first: Option<T>,
        second: Option<T>,
        field: &str,
    ) -> Option<T> {
        match (first, second) {
            (Some(first), Some(second)) if first != second => {
                self.refuse(
                    field,
                    "differs from what another field says for another platform: a push has one value for all",
                );
                Some(first)
            }
            (first, second) => first.or(second),
        }
    }
}

impl Object {
    fn path_of(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }
}

/// A string in the audience language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_written() {
        let mapped = Mapped {
            audience: json!({"all": true}),
            ttl_seconds: Some(0),
            ..Mapped::default()
        };
        assert_eq!(
            mapped.to_json(),
            r#"{"audience":{"all":true},"options":{"ttl":0}}"#
        );
        assert_eq!(quoted(r#"a"b\"#), r#""a\"b\\""#);
    }
}
