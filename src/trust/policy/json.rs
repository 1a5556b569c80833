//! JSON read strictly: every key once, every field known, and the place of each value kept for messages.
//!
//! `serde` keeps neither duplicate keys nor places, and in a policy a key that is silently ignored is a hole.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Fault, Problem};

/// A JSON value with all entries of its objects, in the order of the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Flag(bool),
    Number,
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn sort(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag(_) => "true or false",
            Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Where in a policy something stands: `transports.docker["r.example/a"][0].keyPath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At(pub String);

impl At {
    /// The whole document.
    pub(super) fn top() -> Self {
        Self(String::new())
    }

    /// A field of the object here.
    pub(super) fn field(&self, name: &str) -> Self {
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        match (plain, self.0.is_empty()) {
            (true, true) => Self(name.to_owned()),
            (true, false) => Self(format!("{}.{name}", self.0)),
            (false, _) => Self(format!("{}[{:?}]", self.0, shortened(name))),
        }
    }

    /// An element of the list here, counted from 0 as jq does.
    pub(super) fn element(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// What is wrong here.
    pub(super) fn fault(&self, problem: Problem) -> Fault {
        Fault { at: self.0.clone(), problem }
    }

    fn expected(&self, what: &'static str, node: &Node) -> Fault {
        self.fault(Problem::Sort { expected: what, found: node.sort() })
    }

    /// The string here.
    pub(super) fn text(&self, node: Node) -> Result<String, Fault> {
        match node {
            Node::Text(text) if text.is_empty() => Err(self.fault(Problem::Empty)),
            Node::Text(text) => Ok(text),
            other => Err(self.expected("a string", &other)),
        }
    }

    /// The `true` or `false` here.
    pub(super) fn flag(&self, node: &Node) -> Result<bool, Fault> {
        match node {
            Node::Flag(flag) => Ok(*flag),
            other => Err(self.expected("true or false", other)),
        }
    }

    /// The elements of the list here, each with its place. An empty list means nothing in a policy.
    pub(super) fn list(&self, node: Node) -> Result<Vec<(Self, Node)>, Fault> {
        match node {
            Node::List(list) if list.is_empty() => Err(self.fault(Problem::Empty)),
            Node::List(list) => {
                Ok(list.into_iter().enumerate().map(|(i, node)| (self.element(i), node)).collect())
            }
            other => Err(self.expected("a list", &other)),
        }
    }
}

/// The fields of an object that nobody has asked for yet.
#[derive(Debug)]
pub(super) struct Fields {
    pub at: At,
    left: Vec<(String, Node)>,
    asked: Vec<&'static str>,
}

impl Fields {
    /// The fields of the object at `at`.
    pub(super) fn of(at: At, node: Node) -> Result<Self, Fault> {
        let left = match node {
            Node::Object(left) => left,
            other => return Err(at.expected("an object", &other)),
        };
        let mut names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(at.field(pair[0]).fault(Problem::Twice));
        }
        Ok(Self { at, left, asked: Vec::new() })
    }

    /// Takes a field, if it is there.
    pub(super) fn take(&mut self, name: &'static str) -> Option<(At, Node)> {
        self.asked.push(name);
        let index = self.left.iter().position(|(have, _)| have == name)?;
        Some((self.at.field(name), self.left.swap_remove(index).1))
    }

    /// Takes a field that must be there.
    pub(super) fn need(&mut self, name: &'static str) -> Result<(At, Node), Fault> {
        self.take(name).ok_or_else(|| self.at.fault(Problem::Missing(name)))
    }

    /// Takes a string, if it is there.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<(At, String)>, Fault> {
        self.take(name).map(|(at, node)| at.text(node).map(|text| (at, text))).transpose()
    }

    /// Takes a string that must be there.
    pub(super) fn need_text(&mut self, name: &'static str) -> Result<String, Fault> {
        let (at, node) = self.need(name)?;
        at.text(node)
    }

    /// Takes a list of strings, if it is there.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Option<Vec<(At, String)>>, Fault> {
        let Some((at, node)) = self.take(name) else { return Ok(None) };
        let texts = at.list(node)?.into_iter().map(|(at, node)| at.text(node).map(|text| (at, text)));
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// Takes a flag; one that is not there is `false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Fault> {
        self.take(name).map_or(Ok(false), |(at, node)| at.flag(&node))
    }

    /// Everything that is left, for objects whose keys are names.
    pub(super) fn rest(self) -> Vec<(At, String, Node)> {
        let at = self.at;
        self.left.into_iter().map(|(name, node)| (at.field(&name), name, node)).collect()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Fault> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(self
                .at
                .fault(Problem::UnknownField { name: shortened(name), known: self.asked.join(", ") })),
        }
    }
}

/// Enough of a string to recognise it by.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

/// Reads a whole document.
pub(super) fn read(bytes: &[u8]) -> Result<Node, Fault> {
    serde_json::from_slice(bytes).map_err(|error| At::top().fault(Problem::Json(error.to_string())))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }
}
