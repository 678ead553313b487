//! Routes that come with their description: one cannot be served without the other.

use axum::{Router, handler::Handler, routing};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::operation::Operation;
use crate::ApiState;

/// The routes of a resource.
pub(crate) struct Routes {
    router: Router<ApiState>,
    groups: Vec<Group>,
}

struct Group {
    tag: &'static str,
    description: &'static str,
    operations: Vec<(&'static str, String, Operation)>,
}

macro_rules! methods {
    ($($(#[$doc:meta])* $method:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $method<H, T>(mut self, path: &str, handler: H, operation: Operation) -> Routes
            where
                H: Handler<T, ApiState>,
                T: 'static,
            {
                let guarded = operation.guard(handler);
                self.router = self.router.route(path, routing::$method(guarded));
                self.describe(stringify!($method), path.to_owned(), operation);
                self
            }
        )*
    };
}

impl Routes {
    /// Routes under this heading.
    pub fn of(tag: &'static str, description: &'static str) -> Routes {
        Routes {
            router: Router::new(),
            groups: vec![Group {
                tag,
                description,
                operations: Vec::new(),
            }],
        }
    }

    methods! {
        /// Answers GET, and so HEAD.
        get;
        /// Answers POST.
        post;
        /// Answers PUT.
        put;
        /// Answers PATCH.
        patch;
        /// Answers DELETE.
        delete;
    }

    /// Answers POST of paths that go on with a verb, such as `{id}:pause`. The router knows parameters of whole segments only, so that
    /// one handler gets all of them and splits at the last colon itself. All need the same.
    pub fn verbs<H, T, const N: usize>(
        mut self,
        path: &str,
        handler: H,
        verbs: [(&str, Operation); N],
    ) -> Routes
    where
        H: Handler<T, ApiState>,
        T: 'static,
    {
        let (_, first) = verbs.first().expect("there is a verb");
        let same = |(_, other): &(&str, Operation)| other.is_guarded_as(first);
        assert!(verbs.iter().all(same), "the verbs of {path} share a guard");
        let guarded = first.guard(handler);
        self.router = self.router.route(path, routing::post(guarded));
        for (verb, operation) in verbs {
            self.describe("post", format!("{path}:{verb}"), operation);
        }
        self
    }

    /// These and those.
    pub fn and(mut self, others: Routes) -> Routes {
        self.router = self.router.merge(others.router);
        self.groups.extend(others.groups);
        self
    }

    /// What serves them.
    pub fn into_router(self) -> Router<ApiState> {
        self.router
    }

    fn describe(&mut self, method: &'static str, path: String, operation: Operation) {
        let group = self.groups.last_mut();
        let group = group.expect("there is a group from the beginning");
        group.operations.push((method, path, operation));
    }

    /// The headings and the paths of the document.
    pub(super) fn describe_all(self, generator: &mut SchemaGenerator) -> (Vec<Value>, Value) {
        let mut tags = Vec::new();
        let mut paths = Map::new();
        for group in self.groups {
            tags.push(json!({"name": group.tag, "description": group.description}));
            for (method, path, operation) in group.operations {
                let described = operation.document(method, &path, group.tag, generator);
                let methods = paths.entry(path).or_insert_with(|| json!({}));
                methods[method] = described;
            }
        }
        (tags, paths.into())
    }
}
