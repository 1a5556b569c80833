//! TOML whose values know their lines, so that a complaint names the place. Pure.
//!
//! A complaint never repeats a value: headers hold secrets.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The largest file, in bytes. Real ones have some kilobytes.
const TEXT_MAX: usize = 1 << 20;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// From 1; `None` if the document as a whole is wrong.
    pub(super) line: Option<usize>,
    /// What is wrong and what to write instead.
    pub(super) problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// A place in a document.
pub(super) type Place = Range<usize>;

/// Parses `bytes` and hands the root table to `read`.
///
/// # Errors
/// It is too large, not UTF-8, not TOML, or `read` refuses it.
pub(super) fn parse<T>(
    bytes: &[u8],
    read: impl FnOnce(&Table<'_, '_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let whole = |problem: &str| Fault { line: None, problem: problem.to_owned() };
    if bytes.len() > TEXT_MAX {
        return Err(whole("it is larger than 1 MiB; keep settings of registries only"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| whole("it is not UTF-8; write it anew"))?;
    let root = DeTable::parse(text).map_err(|error| Fault {
        line: error.span().map(|span| line_of(text, span.start)),
        // Without the excerpt of `Display`, which shows values.
        problem: format!("it is not TOML: {}", error.message().replace('\n', ", ")),
    })?;
    read(&Table { fields: root.get_ref(), text, name: "the file".to_owned() })
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// A table of a document.
pub(super) struct Table<'d, 'i> {
    fields: &'d DeTable<'i>,
    text: &'d str,
    /// As complaints call it.
    name: String,
}

impl<'d, 'i> Table<'d, 'i> {
    /// The complaint `problem` at `place`.
    pub(super) fn fault(&self, place: &Place, problem: impl Into<String>) -> Fault {
        Fault { line: Some(line_of(self.text, place.start)), problem: problem.into() }
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, place: &Place) -> usize {
        line_of(self.text, place.start)
    }

    /// Refuses keys that are not in `known`. A key with a slip would otherwise be a setting that silently does not hold.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        let unknown = self.fields.keys().find(|key| !known.contains(&key.get_ref().as_ref()));
        unknown.map_or(Ok(()), |key| {
            let (name, known) = (key.get_ref(), known.join(", "));
            Err(self.fault(
                &key.span(),
                format!("{name:?} in {} is not known here; known are {known}", self.name),
            ))
        })
    }

    /// Whether there is such a key.
    pub(super) fn has(&self, key: &str) -> Option<Place> {
        self.fields.iter().find(|(name, _)| name.get_ref() == key).map(|(name, _)| name.span())
    }

    fn value(&self, key: &str) -> Option<&'d Spanned<DeValue<'i>>> {
        self.fields.get(key)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'i>>, wanted: &str) -> Fault {
        self.fault(&value.span(), format!("{key} in {} must be {wanted}", self.name))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = || self.wrong_type(key, value, "true or false");
        value.get_ref().as_bool().map(Some).ok_or_else(wrong)
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<(&'d str, Place)>, Fault> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.get_ref().as_str().ok_or_else(|| self.wrong_type(key, value, "a text"))?;
        Ok(Some((text, value.span())))
    }

    /// A text, or a list of texts; empty if there is no such key.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<(&'d str, Place)>, Fault> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong_type(key, value, "a text or a list of texts");
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![(text.as_ref(), value.span())]),
            DeValue::Array(items) => items.iter().map(|item| text_of(item).ok_or_else(wrong)).collect(),
            _ => Err(wrong()),
        }
    }

    /// A text, or a list whose items are texts or lists of texts: each item as a list.
    pub(super) fn lists(&self, key: &str) -> Result<Vec<Vec<(&'d str, Place)>>, Fault> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong_type(key, value, "a text, or a list of texts or of pairs of texts");
        let inner = |items: &'d DeArray<'i>| items.iter().map(text_of).collect::<Option<Vec<_>>>();
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![vec![(text.as_ref(), value.span())]]),
            DeValue::Array(items) => {
                let item = |item: &'d Spanned<DeValue<'i>>| match item.get_ref() {
                    DeValue::Array(pair) => inner(pair).ok_or_else(wrong),
                    _ => text_of(item).map(|text| vec![text]).ok_or_else(wrong),
                };
                items.iter().map(item).collect()
            }
            _ => Err(wrong()),
        }
    }

    /// A table.
    pub(super) fn table(&self, key: &str) -> Result<Option<Table<'d, 'i>>, Fault> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let fields = value.get_ref().as_table().ok_or_else(|| self.wrong_type(key, value, "a table"))?;
        Ok(Some(Table { fields, text: self.text, name: format!("[{key}]") }))
    }

    /// The tables in a table by their keys, in the order of the file.
    pub(super) fn inner_tables(&self) -> Result<Vec<(&'d str, Place, Table<'d, 'i>)>, Fault> {
        let mut found = Vec::new();
        for (key, value) in self.fields {
            let wrong = || self.wrong_type(key.get_ref(), value, "a table");
            let fields = value.get_ref().as_table().ok_or_else(wrong)?;
            let name = format!("table {:?}", key.get_ref());
            found.push((key.get_ref().as_ref(), key.span(), Table { fields, text: self.text, name }));
        }
        // A table may have been begun by the header of one inside it.
        found.sort_by_key(|(_, place, _)| place.start);
        Ok(found)
    }

    /// An array of tables, `[[key]]`.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<(Place, Table<'d, 'i>)>, Fault> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong_type(key, value, &format!("tables, each begun by [[{key}]]"));
        let items = value.get_ref().as_array().ok_or_else(wrong)?;
        let item = |item: &'d Spanned<DeValue<'i>>| {
            let fields = item.get_ref().as_table().ok_or_else(wrong)?;
            Ok((item.span(), Table { fields, text: self.text, name: format!("[[{key}]]") }))
        };
        items.iter().map(item).collect()
    }

    /// The keys, each with its place.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'d str, Place)> {
        self.fields.keys().map(|key| (key.get_ref().as_ref(), key.span()))
    }
}

fn text_of<'d>(value: &'d Spanned<DeValue<'_>>) -> Option<(&'d str, Place)> {
    value.get_ref().as_str().map(|text| (text, value.span()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_the_line_and_no_value() {
        for (text, line) in [
            ("a = 1\nb = \"s3cret\nc = 2\n", Some(2)),
            ("a = \"s3cret\"\na = \"s3cret\"\n", Some(2)),
            ("ok = true\n\nwhat = \"s3cret\"\n", Some(3)),
            ("ok = \"s3cret\"\n", Some(1)),
        ] {
            let read = |root: &Table<'_, '_>| {
                root.only(&["ok"])?;
                root.boolean("ok")
            };
            let fault = parse(text.as_bytes(), read).unwrap_err();
            assert_eq!(fault.line, line, "{text}: {fault}");
            assert!(!fault.problem.contains("s3cret"), "{fault}");
        }
        assert!(parse(&[0xff], |_| Ok(())).unwrap_err().problem.contains("UTF-8"));
        let large = "#".repeat(TEXT_MAX + 1);
        assert!(parse(large.as_bytes(), |_| Ok(())).unwrap_err().problem.contains("1 MiB"));
    }

    #[test]
    fn deeply_nested_documents_are_refused() {
        let nested = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(nested.as_bytes(), |_| Ok(())).is_err());
    }
}
