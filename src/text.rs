//! Text from outside in messages and logs: what can be shown as it is, and what becomes of the rest.
//!
//! A reference, a registry's message or a signature's name must neither begin a new line in a log nor reorder or hide
//! what stands around it.

use std::fmt;

/// Whether a character shows as itself: it is no control character, separates no lines, changes no direction of
/// writing, and is not invisible.
pub fn is_plain(c: char) -> bool {
    let is_hidden = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    !c.is_control() && !is_hidden
}

/// The text in one line, with a blank for each character that is not plain.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { ' ' }).collect()
}

/// Writes to another writer, with an escape (`\n`, `\u{202e}`) for each character that is not plain.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // Plain text, which is nearly all, is written in one piece.
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| !is_plain(*c)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = Escaping(String::new());
        out.write_str(text).unwrap();
        out.0
    }

    #[test]
    fn lines_and_directions_are_escaped_and_letters_are_not() {
        for (text, shown) in [
            ("a\nERROR forged", "a\\nERROR forged"),
            ("a\r\tb\0", "a\\r\\tb\\u{0}"),
            ("a\u{2028}b\u{85}c", "a\\u{2028}b\\u{85}c"),
            ("\u{202e}dnammoc\u{202c}", "\\u{202e}dnammoc\\u{202c}"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("größer \u{1f4be} 模型", "größer \u{1f4be} 模型"),
        ] {
            assert_eq!(escaped(text), shown);
            assert_eq!(one_line(text).lines().count(), 1);
        }
        assert_eq!(one_line("a\n\u{2029}b"), "a  b");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_written_is_plain(text in any::<String>()) {
            prop_assert!(escaped(&text).chars().all(is_plain));
            prop_assert!(one_line(&text).chars().all(is_plain));
            if text.chars().all(is_plain) {
                prop_assert_eq!(escaped(&text), text);
            }
        }
    }
}
