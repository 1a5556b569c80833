//! YAML as Go's `yaml.v3` writes it at an indentation of two, so that a file that is made here has the bytes of the one
//! that a tool makes. A library's next release might write the same otherwise, and these bytes are in composefs digests.
//!
//! The keys of foreign objects are sorted by their bytes. `yaml.v3` sorts those with numbers in them by the numbers. The tests
//! name the few texts that are written otherwise, which mean the same.

use serde_json::Value;

mod number;
mod resolve;
mod scalar;

use scalar::Context;

/// What is written.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A text.
    Text(&'a str),
    /// Texts in one line.
    Row(&'a [String]),
    /// Members in their order.
    Map(Map<'a>),
    /// Entries.
    List(Vec<Self>),
    /// What came as JSON.
    Value(&'a Value),
}

/// The members of an object.
#[derive(Debug, Default)]
pub(super) struct Map<'a>(Vec<(&'a str, Node<'a>)>);

impl<'a> Map<'a> {
    /// With a member more.
    pub(super) fn push(&mut self, key: &'a str, node: Node<'a>) {
        self.0.push((key, node));
    }

    /// Whether it has none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Node<'_> {
    /// The document; `None` if it has more than `max` bytes.
    pub(super) fn write(&self, max: usize) -> Option<Vec<u8>> {
        let mut writer = Writer { text: String::new(), max };
        writer.node(self, 0, Behind::Start)?;
        Some(writer.text.into_bytes())
    }
}

/// What stands before a node on its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// Nothing.
    Start,
    /// `key:`
    Key,
    /// `- `
    Dash,
}

struct Writer {
    text: String,
    max: usize,
}

/// `None` is for more than `max` bytes. `indent` is where the members of the node's own parent begin.
impl Writer {
    fn put(&mut self, text: &str) -> Option<()> {
        self.text.push_str(text);
        (self.text.len() <= self.max).then_some(())
    }

    fn spaces(&mut self, count: usize) -> Option<()> {
        self.put(&" ".repeat(count))
    }

    fn node(&mut self, node: &Node<'_>, indent: usize, behind: Behind) -> Option<()> {
        match node {
            Node::Text(text) => self.words(text, indent, behind),
            Node::Row(texts) => {
                let all: Vec<_> = texts.iter().map(|text| scalar::text(text, Context::Flow)).collect();
                self.scalar(&format!("[{}]", all.join(", ")), behind)
            }
            Node::Map(Map(members)) => {
                self.map(members.iter().map(|(key, node)| (*key, node)), indent, behind, Self::node)
            }
            Node::List(all) => self.list(all, indent, behind, Self::node),
            Node::Value(value) => self.value(value, indent, behind),
        }
    }

    fn value(&mut self, value: &Value, indent: usize, behind: Behind) -> Option<()> {
        match value {
            Value::Null => self.scalar("null", behind),
            Value::Bool(value) => self.scalar(&value.to_string(), behind),
            Value::Number(value) => self.scalar(&number::text(value), behind),
            Value::String(text) => self.words(text, indent, behind),
            Value::Array(all) => self.list(all, indent, behind, Self::value),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().map(|(key, value)| (key.as_str(), value)).collect();
                members.sort_unstable_by_key(|(key, _)| *key);
                self.map(members.into_iter(), indent, behind, Self::value)
            }
        }
    }

    fn words(&mut self, text: &str, indent: usize, behind: Behind) -> Option<()> {
        // Each line of a block is indented.
        let lines = text.bytes().filter(|byte| *byte == b'\n').count();
        if lines.saturating_mul(indent + 2).saturating_add(text.len()) > self.max {
            return None;
        }
        self.scalar(&scalar::text(text, Context::Block(indent)), behind)
    }

    fn scalar(&mut self, text: &str, behind: Behind) -> Option<()> {
        if behind == Behind::Key {
            self.put(" ")?;
        }
        self.put(text)?;
        // A block ends its line by itself.
        if text.ends_with('\n') { Some(()) } else { self.put("\n") }
    }

    fn map<'n, T: 'n>(
        &mut self,
        members: impl ExactSizeIterator<Item = (&'n str, &'n T)>,
        indent: usize,
        behind: Behind,
        write: fn(&mut Self, &T, usize, Behind) -> Option<()>,
    ) -> Option<()> {
        if members.len() == 0 {
            return self.scalar("{}", behind);
        }
        let inner = self.open(indent, behind)?;
        for (number, (key, value)) in members.enumerate() {
            if number > 0 || behind != Behind::Dash {
                self.spaces(inner)?;
            }
            if scalar::is_marked_key(key) {
                self.put("? ")?;
                self.words(key, inner, Behind::Dash)?;
                self.spaces(inner)?;
            } else {
                self.put(&scalar::text(key, Context::Block(inner)))?;
            }
            self.put(":")?;
            write(self, value, inner, Behind::Key)?;
        }
        Some(())
    }

    fn list<T>(
        &mut self,
        all: &[T],
        indent: usize,
        behind: Behind,
        write: fn(&mut Self, &T, usize, Behind) -> Option<()>,
    ) -> Option<()> {
        if all.is_empty() {
            return self.scalar("[]", behind);
        }
        let inner = self.open(indent, behind)?;
        for (number, entry) in all.iter().enumerate() {
            if number > 0 || behind != Behind::Dash {
                self.spaces(inner)?;
            }
            self.put("- ")?;
            write(self, entry, inner, Behind::Dash)?;
        }
        Some(())
    }

    /// Where what is in a node begins.
    fn open(&mut self, indent: usize, behind: Behind) -> Option<usize> {
        match behind {
            Behind::Start => Some(indent),
            Behind::Key => self.put("\n").map(|()| indent + 2),
            Behind::Dash => Some(indent + 2),
        }
    }
}

#[cfg(test)]
mod tests;
