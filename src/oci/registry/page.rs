//! Tells web pages from documents: what a sign-in page, a portal or a proxy answers in a registry's place. Pure.

use crate::text::one_line;

/// The number of characters of a page's title that are repeated.
const TITLE_MAX: usize = 80;
/// The same of a storage's error.
const ERROR_MAX: usize = 300;

/// What is said of a page whose content is not known.
pub(super) const A_PAGE: &str = "a web page came instead";

/// What a body that is no document of a registry is, if it begins as HTML or XML do; JSON never does.
pub(super) fn described(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(8 << 10)]);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if !text.starts_with('<') {
        return None;
    }
    let title = element(text, "title").map(|title| shown(&title, TITLE_MAX));
    Some(title.map_or(A_PAGE.to_owned(), |title| format!("{A_PAGE}, titled {title:?}")))
}

/// The error that an object storage states in XML, as `CODE MESSAGE`.
pub(super) fn storage_error(body: &str) -> Option<String> {
    let code = element(body, "code")?;
    Some(shown(format!("{code} {}", element(body, "message").unwrap_or_default()).trim(), ERROR_MAX))
}

fn shown(text: &str, max: usize) -> String {
    one_line(&text.chars().take(max).collect::<String>())
}

/// The text of the first element of that name, in lower case given.
fn element(text: &str, name: &str) -> Option<String> {
    // Only ASCII letters change, so places in both texts are the same.
    let lower = text.to_ascii_lowercase();
    let begin = lower.find(&format!("<{name}>"))? + name.len() + 2;
    let end = begin + lower[begin..].find("</")?;
    Some(text[begin..end].split_whitespace().collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_from_documents() {
        for (body, expected) in [
            ("{\"schemaVersion\":2}", None),
            ("", None),
            ("nonsense", None),
            ("<html><title>Sign in\n to\u{1b}[0m X</title>", Some("titled \"Sign in to [0m X\"")),
            ("\u{feff}\n <!DOCTYPE html><HTML><Title>Portal</Title>", Some("titled \"Portal\"")),
            ("<!-- no title -->", Some(A_PAGE)),
        ] {
            let found = described(body.as_bytes());
            assert_eq!(found.is_some(), expected.is_some(), "{body}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{body}");
        }
        let long = format!("<title>{}</title>", "é".repeat(5000));
        assert!(described(long.as_bytes()).unwrap().chars().count() < 150);
    }

    #[test]
    fn storage_says_why() {
        let body = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message>\
                    <AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        assert_eq!(storage_error(body).unwrap(), "AccessDenied Request has expired");
        assert_eq!(storage_error("<html><title>x</title>"), None);
        assert_eq!(storage_error("<Code>unfinished"), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "<?.{0,60}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = (described(text.as_bytes()), described(&bytes), storage_error(&text));
        }
    }
}
