//! Reading a request's body within bounds.

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::{
    ApiState, Config,
    problem::{Code, Problem},
};

/// Bytes of a body that is too large which are read and thrown away, so that the caller reads our answer rather than a reset
/// connection.
const DISCARDED_BYTES: usize = 1 << 20;

/// Refuses a body that does not say to be plain JSON.
pub(crate) fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: String| Err(Problem::new(Code::UnsupportedMediaType, detail));
    let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    match headers.get(header::CONTENT_TYPE) {
        None => return refuse("send the header \"Content-Type: application/json\"".into()),
        Some(value) if !value.to_str().is_ok_and(is_json) => {
            return refuse(format!(
                "the Content-Type is {:?}: send application/json in UTF-8",
                lossy(value)
            ));
        }
        Some(_) => {}
    }
    check_encoding(headers)
}

/// Refuses a body that is encoded.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"identity") => Err(Problem::new(
            Code::UnsupportedMediaType,
            format!(
                "the Content-Encoding is {:?}: send the body as it is",
                String::from_utf8_lossy(value.as_bytes())
            ),
        )),
        _ => Ok(()),
    }
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// All of a body of plain JSON, for handlers that have nothing to refuse before they read it.
pub(crate) struct JsonBody(pub Bytes);

impl FromRequest<ApiState> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<JsonBody, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_json(&parts.headers, body, state.config()).await?;
        Ok(JsonBody(bytes))
    }
}

/// Reads all of a body of plain JSON.
pub(crate) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    config: &Config,
) -> Result<Bytes, Problem> {
    check_type(headers)?;
    read(headers, body, config).await
}

/// Reads all of it, or says why not.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    config: &Config,
) -> Result<Bytes, Problem> {
    read_at_most(headers, body, config, config.max_body_bytes).await
}

/// Reads all of a body that may be larger or smaller than others.
pub(crate) async fn read_at_most(
    headers: &HeaderMap,
    body: Body,
    config: &Config,
    limit: usize,
) -> Result<Bytes, Problem> {
    let announced = body.size_hint().lower();
    // Whoever waits for our "100 Continue" gets the refusal before it sends anything.
    if announced > limit as u64 && headers.contains_key(header::EXPECT) {
        return Err(too_large(limit));
    }
    match timeout(config.body_timeout(), collect(body, limit)).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(
            Code::BodyTimeout,
            format!(
                "the body did not arrive within {} ms",
                config.body_timeout_ms
            ),
        )),
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut collected = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| incomplete())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.remaining();
        if length > limit.saturating_add(DISCARDED_BYTES) {
            break;
        }
        if length <= limit {
            collected.extend_from_slice(&data);
        }
    }
    if length > limit {
        Err(too_large(limit))
    } else {
        Ok(collected.freeze())
    }
}

/// Throws away some of what is left of a body that is refused.
pub(crate) async fn discard(body: &mut Body, config: &Config) {
    let mut length = 0;
    let discarding = async {
        while length <= DISCARDED_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            length += frame.data_ref().map_or(0, |data| data.remaining());
        }
    };
    // Whoever is slow with it gets the answer now.
    let _ = timeout(config.body_timeout(), discarding).await;
}

pub(crate) fn incomplete() -> Problem {
    Problem::new(
        Code::IncompleteBody,
        "the connection ended or broke the framing within the body",
    )
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        Code::BodyTooLarge,
        format!("the body has more than {limit} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn only_json_in_utf8() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonp",
            "application/json; charset=latin1",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
