//! Parses the document: the default, the transports, and their scopes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::compile::{self, Read};
use super::error::{Fault, PolicyError, Problem};
use super::json::{self, At, Fields, Node};
use super::requirement::Requirement;
use super::rule::Policy;
use super::scope::Transport;
use super::shape::{self, Shape};

/// The largest policy file, in bytes: that of a ConfigMap, 1 MiB.
pub(super) const POLICY_MAX: usize = 1 << 20;

/// The requirements of one list as they are written.
type Draft = Vec<(At, Shape)>;

impl Policy {
    /// Parses the text of `file`, and the keys and roots that it names, which `read` reads.
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
    // Keys are read last: an error of form is reported even if keys are missing.
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

/// Collects the scopes of one transport. Those of an unused transport (`None`) only have to be well-formed.
fn transport_scopes(
    at: At,
    transport: Option<Transport>,
    node: Node,
    into: &mut Vec<(Transport, String, Draft)>,
) -> Result<(), Fault> {
    for (at, scope, node) in Fields::of(at, node)?.rest() {
        // Also parsed for unused transports, so that their mistakes are found.
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
    let has = |is: fn(&Shape) -> bool| draft.iter().any(|(_, shape)| is(shape));
    // Such a list would admit unsigned images.
    if !has(|shape| !matches!(shape, Shape::Composefs { .. } | Shape::WarnOnly)) {
        return Err(at.fault(Problem::Together(
            "neither composefs nor warnOnly says who made an image; add a signature requirement, or \
             insecureAcceptAnything for none",
        )));
    }
    if has(|shape| matches!(shape, Shape::WarnOnly)) && !has(Shape::is_of_signatures) {
        return Err(at.fault(Problem::Together(
            "warnOnly turns signatures that are missing or wrong into warnings, and nothing here asks for one; \
             remove it",
        )));
    }
    Ok(draft)
}
