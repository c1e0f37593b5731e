//! The uid of a review that may be broken.

/// The uid of a review, found without parsing the rest: a broken review, too, is answered by its name.
///
/// It is the first text under the key `uid` directly inside the first object under the key `request` directly inside
/// the body. `None` when the body breaks off before it, or when it is empty.
pub fn uid(body: &[u8]) -> Option<String> {
    let mut depth = 0_usize;
    let mut in_request = false;
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth < 2 && in_request {
                    return None;
                }
                at += 1;
            }
            b'"' => {
                let end = end_of_text(body, at)?;
                let key = &body[at..end];
                at = end;
                let Some(value) = value_after(body, end) else { continue };
                if depth == 1 && key == b"\"request\"" {
                    in_request = body.get(value) == Some(&b'{');
                } else if depth == 2 && in_request && key == b"\"uid\"" {
                    let text = body.get(value..end_of_text(body, value)?)?;
                    return serde_json::from_slice(text).ok().filter(|uid: &String| !uid.is_empty());
                }
                at = value;
            }
            _ => at += 1,
        }
    }
    None
}

/// The first byte behind the text that starts here.
fn end_of_text(body: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match body.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the value starts, when what ended here is a key.
fn value_after(body: &[u8], end: usize) -> Option<usize> {
    let next = |from: usize| (from..body.len()).find(|at| !body[*at].is_ascii_whitespace());
    let colon = next(end).filter(|at| body[*at] == b':')?;
    next(colon + 1)
}

#[cfg(test)]
mod tests {
    use super::uid;

    #[test]
    fn finds_the_uid_of_a_broken_review() {
        for body in [
            r#"{"request": {"uid": "a\u0062c", "object": {"#,
            r#"{"kind":"x","request":{"kind":{"uid":"no"},"object":{"metadata":{"uid":"no"}},"uid":"abc"}}"#,
            r#"{"uid":"no","other":{"uid":"no"},"request" : {"a\"":"}","uid":"abc"} trailing"#,
        ] {
            assert_eq!(uid(body.as_bytes()).as_deref(), Some("abc"), "{body}");
        }
    }

    #[test]
    fn finds_none_where_there_is_none() {
        for body in [
            "",
            "{",
            "\"",
            r#"{"request":"uid"}"#,
            r#"{"request":{"uid":7}}"#,
            r#"{"request":{"uid":""}}"#,
            r#"{"request":{"uid":"abc"#,
            r#"{"request":{}, "uid":"abc"}"#,
            r#"{"object":{"request":{"uid":"abc"}}}"#,
            r#"{"request":["uid","abc"]}"#,
        ] {
            assert_eq!(uid(body.as_bytes()), None, "{body}");
        }
    }
}
