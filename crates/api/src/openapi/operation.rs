//! What one operation takes and answers.

use std::collections::BTreeSet;

use campanile_push::registry::permission::Permission;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::problems::{self, Shape as ProblemShape};
use crate::{
    guard::{Access, Guarded},
    problem::Code,
};

/// Refusals of everything that needs a key: the key may be looked up in the store.
const OF_KEYS: &[Code] = &[
    Code::KeyMissing,
    Code::KeyInvalid,
    Code::WrongApp,
    Code::AppLeaving,
    Code::NotPermitted,
    Code::StoreUnavailable,
];
/// Refusals of everything that has a body.
const OF_BODIES: &[Code] = &[
    Code::IncompleteBody,
    Code::BodyTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
];
/// Refusals of a body that is read as JSON.
const OF_JSON: &[Code] = &[
    Code::MalformedJson,
    Code::DuplicateField,
    Code::TooDeep,
    Code::UnknownField,
    Code::MissingField,
    Code::InvalidField,
];

/// How a body or an answer is made up.
pub(crate) enum Content {
    /// Nothing.
    None,
    /// JSON as a type of ours is written.
    Of(fn(&mut SchemaGenerator) -> Schema),
    /// JSON as the schema tells, for what is read or written by hand.
    Told(Value),
    /// Something else: a media type, what it is, and an example.
    Other(&'static str, &'static str, &'static str),
    /// Server-sent events: what they are, and an example. To some readers of the document they are text, to others one after the other.
    Events(&'static str, &'static str),
}

/// JSON as the type is written.
pub(crate) fn of<T: JsonSchema>() -> Content {
    Content::Of(|generator| generator.subschema_for::<T>())
}

/// One of [`super::schemas`], by its name.
pub(crate) fn named(name: &str) -> Content {
    Content::Told(super::reference(name))
}

struct Answer {
    status: u16,
    description: &'static str,
    content: Content,
    headers: Vec<(&'static str, &'static str)>,
    links: Vec<(&'static str, &'static str, &'static str)>,
}

/// One method of one path, as the document describes it. Made beside its handler.
pub(crate) struct Operation {
    id: &'static str,
    summary: &'static str,
    description: String,
    access: Access,
    parameters: Vec<Value>,
    body: Option<Value>,
    bodies: Vec<(Content, Value)>,
    answers: Vec<Answer>,
    problems: BTreeSet<Code>,
    shape: ProblemShape,
    writes: bool,
}

impl Operation {
    /// An operation that needs no key and answers nothing yet. `id` is the name of a function in generated clients.
    pub fn new(id: &'static str, summary: &'static str) -> Operation {
        Operation {
            id,
            summary,
            description: String::new(),
            access: Access::Open,
            parameters: Vec::new(),
            body: None,
            bodies: Vec::new(),
            answers: Vec::new(),
            problems: [Code::Internal].into(),
            shape: ProblemShape::Ours,
            writes: true,
        }
    }

    /// More than the summary says. Markdown, of which the page shows `code` only.
    pub fn tells(mut self, description: &str) -> Operation {
        self.description = description.to_owned();
        self
    }

    /// Needs a key of the app with this permission.
    pub fn needs(mut self, permission: Permission) -> Operation {
        self.access = Access::App(permission);
        self.may(OF_KEYS)
    }

    /// Needs a key with the permission `operator`, of any app.
    pub fn needs_operator(mut self) -> Operation {
        self.access = Access::Operator;
        self.may(&[
            Code::KeyMissing,
            Code::KeyInvalid,
            Code::AppLeaving,
            Code::NotPermitted,
            Code::StoreUnavailable,
        ])
    }

    /// Needs app and key as user name and password.
    pub fn needs_password(mut self, permission: Permission) -> Operation {
        self.access = Access::Password(permission);
        self.may(OF_KEYS)
    }

    /// Changes nothing although its method is one that usually does, so that its outcome is never unknown.
    pub fn changes_nothing(mut self) -> Operation {
        self.writes = false;
        self
    }

    /// Takes `limit` and `after`, and answers `next`.
    pub fn paged(self) -> Operation {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": crate::query::Paging::MOST, "default": crate::query::Paging::USUAL});
        self.query("limit", "At most so many.", limit).query(
            "after",
            "Goes on after the `next` of the page before.",
            json!({"type": "string"}),
        )
    }

    /// As [`Operation::paged`], where `next` is a ULID.
    pub fn paged_by_id(mut self) -> Operation {
        self = self.paged();
        if let Some(after) = self.parameters.last_mut() {
            after["schema"] = super::reference("Ulid");
        }
        self
    }

    /// Takes a parameter of the query, which may be left out.
    pub fn query(mut self, name: &str, description: &str, schema: Value) -> Operation {
        self.parameters.push(
            json!({"name": name, "in": "query", "description": description, "schema": schema}),
        );
        self.may(&[Code::InvalidParameter])
    }

    /// Takes a header, which may be left out.
    pub fn takes_header(mut self, name: &str, description: &str, schema: Value) -> Operation {
        self.parameters.push(
            json!({"name": name, "in": "header", "description": description, "schema": schema}),
        );
        self.may(&[Code::InvalidParameter])
    }

    /// Takes an `Idempotency-Key`.
    pub fn idempotent(mut self) -> Operation {
        self.parameters
            .push(json!({"$ref": "#/components/parameters/IdempotencyKey"}));
        self.may(&[Code::InvalidIdempotencyKey, Code::IdempotencyKeyReused])
    }

    /// Takes JSON in bounds of `http.max_body_bytes`.
    pub fn takes(self, schema: Value, example: Value) -> Operation {
        self.with_body(true, Content::Told(schema), example)
            .may(OF_JSON)
    }

    /// As [`Operation::takes`], but may be left out.
    pub fn takes_optional(self, schema: Value, example: Value) -> Operation {
        self.with_body(false, Content::Told(schema), example)
            .may(OF_JSON)
    }

    /// Takes a body that is not JSON. Called again: another one.
    pub fn takes_other(
        self,
        media_type: &'static str,
        what: &'static str,
        example: &'static str,
    ) -> Operation {
        self.with_body(
            true,
            Content::Other(media_type, what, example),
            example.into(),
        )
    }

    fn with_body(mut self, required: bool, content: Content, example: Value) -> Operation {
        self.body = Some(json!({"required": required, "content": {}}));
        self.bodies.push((content, example));
        self.may(OF_BODIES)
    }

    /// Answers so if all went well. Called again: or so.
    pub fn answers(mut self, status: u16, description: &'static str, content: Content) -> Self {
        self.answers.push(Answer {
            status,
            description,
            content,
            headers: Vec::new(),
            links: Vec::new(),
        });
        self
    }

    /// The last answer has this header, always or sometimes.
    pub fn header(mut self, name: &'static str, description: &'static str) -> Operation {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push((name, description));
        }
        self
    }

    /// What the last answer has at the pointer is the path parameter of another operation.
    pub fn leads_to(
        mut self,
        operation: &'static str,
        parameter: &'static str,
        pointer: &'static str,
    ) -> Operation {
        if let Some(answer) = self.answers.last_mut() {
            answer.links.push((operation, parameter, pointer));
        }
        self
    }

    /// May be refused with these codes too.
    pub fn may(mut self, codes: &[Code]) -> Operation {
        self.problems.extend(codes);
        self
    }

    /// Refusals have the shape of another service.
    pub fn refuses_as(mut self, shape: ProblemShape) -> Operation {
        self.shape = shape;
        self
    }

    /// Whether the same may come in.
    pub(super) fn is_guarded_as(&self, other: &Operation) -> bool {
        (self.access, self.shape) == (other.access, other.shape)
    }

    /// A handler that only those reach who may.
    pub(super) fn guard<H>(&self, handler: H) -> Guarded<H> {
        Guarded {
            access: self.access,
            shape: self.shape,
            handler,
        }
    }

    /// The operation as OpenAPI has it.
    pub(super) fn document(
        mut self,
        method: &str,
        path: &str,
        tag: &str,
        generator: &mut SchemaGenerator,
    ) -> Value {
        let parameters = super::parameters::of_path(path);
        if !parameters.is_empty() {
            self = self.may(&[Code::NotFound]);
        }
        if method != "get" && self.writes {
            self = self.may(&[Code::OutcomeUnknown]);
        }
        let permission = match &self.access {
            Access::Open => None,
            Access::App(permission) => Some(("bearer", *permission)),
            Access::Operator => Some(("bearer", Permission::Operator)),
            Access::Password(permission) => Some(("password", *permission)),
        };
        let mut sentences = vec![self.description];
        if let Some((_, permission)) = permission {
            sentences.push(format!("Needs a key with `{permission}`."));
        }
        sentences.retain(|sentence| !sentence.is_empty());
        let mut document = json!({
            "operationId": self.id,
            "tags": [tag],
            "summary": self.summary,
            "security": permission.map_or(json!([]), |(scheme, permission)| json!([{scheme: [permission.text()]}])),
            "responses": {},
        });
        if !sentences.is_empty() {
            document["description"] = sentences.join("\n\n").into();
        }
        let parameters: Vec<Value> = parameters.into_iter().chain(self.parameters).collect();
        if !parameters.is_empty() {
            document["parameters"] = parameters.into();
        }
        if let Some(mut body) = self.body {
            for (content, example) in self.bodies {
                if let Some((media_type, mut shown)) = content.shown(generator) {
                    shown["example"] = example;
                    body["content"][media_type] = shown;
                }
            }
            document["requestBody"] = body;
        }
        for answer in self.answers {
            let status = answer.status.to_string();
            document["responses"][status] = answer.document(generator);
        }
        for (status, refusal) in problems::responses(&self.problems, self.shape) {
            document["responses"][status] = refusal;
        }
        document
    }
}

impl Answer {
    fn document(self, generator: &mut SchemaGenerator) -> Value {
        let mut document = json!({"description": self.description});
        if let Some((media_type, shown)) = self.content.shown(generator) {
            document["content"] = json!({media_type: shown});
        }
        for (name, description) in self.headers {
            document["headers"][name] =
                json!({"description": description, "schema": {"type": "string"}});
        }
        for (operation, parameter, pointer) in self.links {
            let value = format!("$response.body#{pointer}");
            let parameters = json!({"app": "$request.path.app", parameter: value});
            document["links"][operation] =
                json!({"operationId": operation, "parameters": parameters});
        }
        document
    }
}

impl Content {
    fn shown(self, generator: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
        const JSON: &str = "application/json";
        match self {
            Content::None => None,
            Content::Of(schema) => {
                let schema = schema(generator).to_value();
                Some((JSON, json!({"schema": schema})))
            }
            Content::Told(schema) => Some((JSON, json!({"schema": schema}))),
            Content::Other(media_type, what, example) => Some((
                media_type,
                json!({"schema": {"type": "string", "description": what}, "example": example}),
            )),
            Content::Events(what, example) => Some((
                "text/event-stream",
                json!({"schema": {"description": what}, "example": example}),
            )),
        }
    }
}
