//! As much of HTTP/1.1 as pushing over kept-alive connections needs.

/// A whole response at the beginning of the input.
pub struct Response<'a> {
    /// Status code.
    pub status: u16,
    /// Content; responses must say its length.
    pub body: &'a [u8],
    /// Bytes of head and content.
    pub total_len: usize,
}

/// Finds the response that `input` begins with; `None` while it is not complete.
pub fn parse(input: &[u8]) -> Result<Option<Response<'_>>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_len = match response.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not HTTP: {error}")),
    };
    let status = response.code.unwrap_or(0);
    let body_len = match content_length(response.headers) {
        Some(len) => len,
        None if status == 204 || status == 304 => 0,
        None => return Err(format!("response {status} without a content length")),
    };
    let total_len = head_len + body_len;
    Ok(input.get(head_len..total_len).map(|body| Response {
        status,
        body,
        total_len,
    }))
}

fn content_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] =
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 204 x\r\n\r\n";

    #[test]
    fn responses_come_one_after_the_other() {
        let first = parse(TWO).unwrap().unwrap();
        assert_eq!((first.status, first.body), (202, &b"{}"[..]));
        let second = parse(&TWO[first.total_len..]).unwrap().unwrap();
        assert_eq!((second.status, second.body), (204, &b""[..]));
    }

    #[test]
    fn a_part_of_a_response_waits_for_the_rest() {
        for len in 0..TWO.len() - 19 {
            assert!(parse(&TWO[..len]).unwrap().is_none(), "{len}");
        }
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(parse(b"\x20\x02\x00\x00").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
