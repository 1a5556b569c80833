//! The document: the default, the transports, and their scopes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::compile::{self, Read};
use super::error::{Fault, PolicyError, Problem};
use super::json::{self, At, Fields, Node};
use super::scope::Transport;
use super::shape;
use super::{Policy, Requirement};

/// A policy file larger than this is refused, in bytes; ConfigMaps end at 1 MiB.
pub(super) const POLICY_MAX: usize = 1 << 20;

/// The requirements of one list as they are written.
type Draft = Vec<(At, shape::Shape)>;

impl Policy {
    /// Parses the text of `file`, and the keys and roots that it names, which `read` gets.
    ///
    /// # Errors
    /// Anything unknown, given twice, malformed or unreadable; the message says where.
    pub fn parse(file: &Path, text: &[u8], read: Read<'_>) -> Result<Self, PolicyError> {
        parse(file, text, read).map_err(|fault| fault.within(file))
    }
}

fn parse(file: &Path, text: &[u8], read: Read<'_>) -> Result<Policy, Fault> {
    if text.len() > POLICY_MAX {
        return Err(At::top().fault(Problem::Json(format!("it is longer than {POLICY_MAX} bytes"))));
    }
    let mut fields = Fields::of(At::top(), json::read(text)?)?;
    let (at, node) = fields.need("default")?;
    let default = list(&at, node)?;
    let transports = fields.take("transports");
    fields.end()?;
    let mut scopes = Vec::new();
    if let Some((at, node)) = transports {
        for (at, name, node) in Fields::of(at, node)?.rest() {
            let transport = Transport::named(&name).map_err(|problem| at.fault(problem))?;
            transport_scopes(at, transport, node, &mut scopes)?;
        }
    }
    // Everything has the right form: now the keys.
    let base: PathBuf = file.parent().unwrap_or(Path::new("")).to_owned();
    let mut compile = |list: Draft| -> Result<Vec<Requirement>, Fault> {
        list.into_iter().map(|(at, shape)| compile::requirement(at, shape, &base, read)).collect()
    };
    let mut policy = Policy { file: file.to_owned(), default: compile(default)?, scopes: BTreeMap::new() };
    for (transport, scope, draft) in scopes {
        policy.scopes.insert((transport, scope), compile(draft)?);
    }
    Ok(policy)
}

/// The scopes of one transport; those of a transport that is not used here only have to be well-formed.
fn transport_scopes(
    at: At,
    transport: Option<Transport>,
    node: Node,
    into: &mut Vec<(Transport, String, Draft)>,
) -> Result<(), Fault> {
    for (at, scope, node) in Fields::of(at, node)?.rest() {
        let draft = list(&at, node)?;
        if let Some(transport) = transport {
            transport.check(&scope).map_err(|problem| at.fault(problem))?;
            into.push((transport, scope, draft));
        }
    }
    Ok(())
}

fn list(at: &At, node: Node) -> Result<Draft, Fault> {
    let read = |(at, node): (At, Node)| shape::requirement(at.clone(), node).map(|shape| (at, shape));
    let draft: Draft = at.list(node)?.into_iter().map(read).collect::<Result<_, _>>()?;
    // Otherwise a wish about composefs would admit images that nobody has signed.
    if draft.iter().all(|(_, shape)| matches!(shape, shape::Shape::Composefs { .. })) {
        return Err(at.fault(Problem::Together(
            "composefs says nothing of who made an image; add a signature requirement, or insecureAcceptAnything \
             for none",
        )));
    }
    Ok(draft)
}
