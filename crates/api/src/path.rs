//! What a path names.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// The parameters of the path, in their order.
pub(crate) struct InPath<T>(pub T);

impl<T, S> FromRequestParts<S> for InPath<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<InPath<T>, Problem> {
        let Path(parameters) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| not_text())?;
        Ok(InPath(parameters))
    }
}

/// Why a path that matches a route is refused: it cannot be decoded.
pub(crate) fn not_text() -> Problem {
    Problem::new(
        Code::NotFound,
        "the path is not valid UTF-8 after percent-decoding",
    )
}
