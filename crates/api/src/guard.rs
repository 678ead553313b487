//! Who may come in: each route is guarded by what its operation says that it needs, so that the document cannot promise what is not enforced.

use std::pin::Pin;

use axum::{
    extract::{FromRequestParts, RawPathParams, Request},
    handler::Handler,
    http::request::Parts,
    response::Response,
};
use campanile_push::registry::permission::Permission;

use crate::{
    ApiState,
    auth::{self, Caller},
    compat,
    openapi::Shape,
    problem::Problem,
};

/// What an operation needs of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Open,
    /// A key of the app that the path names, with this permission.
    App(Permission),
    /// A key of any app with the permission `operator`.
    Operator,
    /// App and key as user name and password, with this permission.
    Password(Permission),
}

/// A handler behind its guard. Handlers that want to know whom they serve take a [`Caller`].
#[derive(Clone)]
pub(crate) struct Guarded<H> {
    pub access: Access,
    /// In whose words it turns away.
    pub shape: Shape,
    pub handler: H,
}

impl<H, T> Handler<T, ApiState> for Guarded<H>
where
    H: Handler<T, ApiState>,
    T: 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, state: ApiState) -> Self::Future {
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match self.access.admit(&mut parts, &state).await {
                Ok(None) => {}
                Ok(Some(caller)) => {
                    parts.extensions.insert(caller);
                }
                Err(problem) => return compat::refusal(problem, self.shape),
            }
            let request = Request::from_parts(parts, body);
            self.handler.call(request, state).await
        })
    }
}

impl Access {
    async fn admit(self, parts: &mut Parts, state: &ApiState) -> Result<Option<Caller>, Problem> {
        let caller = match self {
            Access::Open => return Ok(None),
            Access::App(permission) => {
                let app = app_of(parts, state).await?;
                auth::authorise(state, &parts.headers, &app, permission).await?
            }
            Access::Operator => auth::authorise_operator(state, &parts.headers).await?,
            Access::Password(permission) => {
                auth::authorise_by_password(state, &parts.headers, permission).await?
            }
        };
        Ok(Some(caller))
    }
}

/// The app that the path names.
async fn app_of(parts: &mut Parts, state: &ApiState) -> Result<String, Problem> {
    let named = RawPathParams::from_request_parts(parts, state).await;
    let named = named.map_err(|_| crate::path::not_text())?;
    let mut named = named.iter();
    let app = named.find(|(name, _)| *name == "app");
    let app = app.map(|(_, value)| value.to_owned());
    app.ok_or_else(|| Problem::internal("a path without an app is guarded by one"))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Problem::internal("nobody guards a handler that asks for its caller"))
    }
}
