//! The grammar of SPIFFE IDs, as the library reads it that Kuma uses.

/// What is wrong with a SPIFFE ID. A prefix must be a whole ID too.
pub(super) fn problem(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        return Some("cannot be empty");
    }
    let Some(rest) = id.strip_prefix("spiffe://") else { return Some("scheme is missing or invalid") };
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    if !domain.bytes().all(fits) {
        return Some(
            "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
        );
    }
    if domain.is_empty() {
        return Some("trust domain is missing");
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // The library goes from left to right and meets a bad character before the end of its segment.
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
            return Some("path segment characters are limited to letters, numbers, dots, dashes, and underscores");
        }
        match segment {
            "" if segments.peek().is_none() => return Some("path cannot have a trailing slash"),
            "" => return Some("path cannot contain empty segments"),
            "." | ".." => return Some("path cannot contain dot segments"),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn reads_ids_as_the_library_does() {
        for fine in ["spiffe://default", "spiffe://a_b.c-1/ns/web/sa/web", "spiffe://td/..."] {
            assert_eq!(problem(fine), None, "{fine}");
        }
        for (id, starts) in [
            ("", "cannot be empty"),
            ("SPIFFE://td", "scheme"),
            ("spiffe:/td", "scheme"),
            ("spiffe://", "trust domain is missing"),
            ("spiffe:///a", "trust domain is missing"),
            ("spiffe://Td/a", "trust domain characters"),
            ("spiffe://td/", "path cannot have a trailing slash"),
            ("spiffe://td/a/", "path cannot have a trailing slash"),
            ("spiffe://td//a", "path cannot contain empty segments"),
            ("spiffe://td/./a", "path cannot contain dot segments"),
            ("spiffe://td/a/..", "path cannot contain dot segments"),
            ("spiffe://td/a b", "path segment characters"),
            ("spiffe://td/*", "path segment characters"),
        ] {
            assert!(problem(id).is_some_and(|problem| problem.starts_with(starts)), "{id}: {:?}", problem(id));
        }
    }
}
