//! How a text is written: as it is, in quotes, or as a block of lines.

use super::resolve::is_another;

/// A key of more bytes is marked by `?`.
const KEY_MAX: usize = 128;

/// Where a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// Behind a key or dash, of what begins at this column.
    Block(usize),
    /// In a list on one line.
    Flow,
}

/// A text. One that ends in a line feed is a block.
pub(super) fn text(text: &str, context: Context) -> String {
    let seen = Seen::of(text);
    match context {
        Context::Block(indent) if text.contains('\n') && seen.may_be_block => block(text, indent + 2),
        _ if text.contains('\n') || is_another(text) => quoted(text),
        Context::Block(_) if seen.may_be_plain => text.to_owned(),
        Context::Flow if seen.may_be_plain_in_row => text.to_owned(),
        _ if seen.may_be_single => format!("'{}'", text.replace('\'', "''")),
        _ => quoted(text),
    }
}

/// Whether a key must be marked as one.
pub(super) fn is_marked_key(key: &str) -> bool {
    key.len() > KEY_MAX || key.contains(is_break)
}

/// What a text's characters allow.
#[derive(Debug, Clone, Copy)]
struct Seen {
    may_be_plain: bool,
    may_be_plain_in_row: bool,
    may_be_single: bool,
    may_be_block: bool,
}

impl Seen {
    fn of(text: &str) -> Self {
        let is_marker = text.starts_with("---") || text.starts_with("...");
        // Signs that would mean something, anywhere and in a row.
        let (mut signs, mut signs_in_row) = (is_marker, is_marker);
        let (mut special, mut tabs) = (false, false);
        // A space behind a line break, one before it, a line break at all.
        let (mut break_space, mut space_break, mut breaks) = (false, false, false);
        let mut before = None;
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            let ends = chars.peek().is_none_or(|next| is_blank(*next));
            let first = before.is_none();
            let begins = before.is_none_or(is_blank);
            match char {
                ',' | '[' | ']' | '{' | '}' => (signs, signs_in_row) = (signs || first, true),
                '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' if first => {
                    (signs, signs_in_row) = (true, true);
                }
                '?' => (signs, signs_in_row) = (signs || first && ends, true),
                ':' => (signs, signs_in_row) = (signs || ends, true),
                '-' if first && ends => (signs, signs_in_row) = (true, true),
                '#' if begins => (signs, signs_in_row) = (true, true),
                _ => {}
            }
            tabs |= char == '\t';
            // Line breaks of other sorts are none of a block's.
            special |= char != '\t' && (!is_printable(char) || is_break(char) && char != '\n');
            breaks |= is_break(char);
            break_space |= char == ' ' && before.is_some_and(is_break);
            space_break |= is_break(char) && before == Some(' ');
            before = Some(char);
        }
        let outer = |char: char| char == ' ' || is_break(char);
        let is_open = text.starts_with(outer) || text.ends_with(outer);
        let may_be_single = !break_space && !space_break && !tabs && !special;
        let may_be_plain = may_be_single && !breaks && !is_open;
        Self {
            may_be_plain: may_be_plain && !signs,
            may_be_plain_in_row: may_be_plain && !signs_in_row,
            may_be_single,
            may_be_block: !space_break && !special && !text.ends_with(' '),
        }
    }
}

fn is_break(char: char) -> bool {
    matches!(char, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t') || is_break(char)
}

/// As `yaml.v3` sees it, which escapes what is beyond 16 bits.
fn is_printable(char: char) -> bool {
    matches!(char, '\n' | ' '..='~' | '\u{a0}'..='\u{fffd}') && char != '\u{feff}'
}

/// The lines, each indented, and what becomes of the line breaks at their end.
fn block(text: &str, indent: usize) -> String {
    let mut block = String::from("|");
    if text.starts_with([' ', '\n']) {
        block.push('2');
    }
    match text.strip_suffix('\n') {
        None => block.push('-'),
        Some(rest) if rest.is_empty() || rest.ends_with('\n') => block.push('+'),
        Some(_) => {}
    }
    block.push('\n');
    for line in text.split_inclusive('\n') {
        if line != "\n" {
            block.push_str(&" ".repeat(indent));
        }
        block.push_str(line);
    }
    if !block.ends_with('\n') {
        block.push('\n');
    }
    block
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        let short = match char {
            '\0' => '0',
            '\u{7}' => 'a',
            '\u{8}' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\u{b}' => 'v',
            '\u{c}' => 'f',
            '\r' => 'r',
            '\u{1b}' => 'e',
            '"' => '"',
            '\\' => '\\',
            '\u{85}' => 'N',
            '\u{2028}' => 'L',
            '\u{2029}' => 'P',
            plain if is_printable(plain) => {
                quoted.push(plain);
                continue;
            }
            other => {
                quoted.push_str(&match u32::from(other) {
                    code @ ..=0xff => format!("\\x{code:02X}"),
                    code @ ..=0xffff => format!("\\u{code:04X}"),
                    code => format!("\\U{code:08X}"),
                });
                continue;
            }
        };
        quoted.extend(['\\', short]);
    }
    quoted.push('"');
    quoted
}
