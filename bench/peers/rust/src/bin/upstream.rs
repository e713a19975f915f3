// SPDX-License-Identifier: MIT
//! Rust as upstream does it (snix's build/src/proto/mod.rs): prost's messages become domain types,
//! which become prost's messages again to be encoded. Types and copies are upstream's: nodes are
//! cloned before they are taken apart, paths and strings copied into each other, constraints are a
//! set of enum values. Beyond upstream, outputs and variables are in ordered maps and sets, too, as
//! they need not come sorted here.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use tvix_build_bench_peers::peer::{serve, Verdict};
use tvix_build_bench_peers::proto;
use tvix_build_bench_peers::values::{
    has_nul, is_env_key, is_host_path, is_name, is_symlink_target,
};

fn main() -> std::io::Result<()> {
    serve(check)
}

fn check(data: Bytes) -> Verdict {
    let message = match proto::BuildRequest::decode(data) {
        Ok(message) => message,
        Err(_) => return Verdict::Invalid,
    };
    let sorted = is_sorted(&message);
    let request = match BuildRequest::try_from(message) {
        Ok(request) => request,
        Err(_) => return Verdict::Invalid,
    };
    let digest = blake3::hash(&proto::BuildRequest::from(request).encode_to_vec()).into();
    if sorted {
        Verdict::Valid(digest)
    } else {
        Verdict::Unsorted(digest)
    }
}

/// `not_sorted`: the one rule that the domain types cannot tell.
fn is_sorted(message: &proto::BuildRequest) -> bool {
    fn ascend<'a>(mut keys: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut last: &[u8] = b"";
        keys.all(|key| std::mem::replace(&mut last, key) <= key)
    }
    let constraints = message.constraints.iter();
    let mut paths = constraints.map(|constraints| constraints.available_ro_paths.iter());
    ascend(message.outputs.iter().map(String::as_bytes))
        && ascend(
            message
                .environment_vars
                .iter()
                .map(|variable| variable.key.as_bytes()),
        )
        && ascend(message.inputs.iter().map(name_of))
        && paths.all(|paths| ascend(paths.map(String::as_bytes)))
}

fn name_of(node: &proto::Node) -> &[u8] {
    match &node.node {
        Some(proto::node::Node::Directory(node)) => &node.name,
        Some(proto::node::Node::File(node)) => &node.name,
        Some(proto::node::Node::Symlink(node)) => &node.name,
        None => b"",
    }
}

/// Why a message is refused: the codes of docs/canonical-form.md.
#[derive(Debug)]
enum Violation {
    Required,
    InvalidArg,
    InvalidName,
    InvalidDigest,
    InvalidSymlinkTarget,
    InvalidEnvKey,
    InvalidEnvValue,
    InvalidPath,
    Duplicate,
    OutputIsInput,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name(Bytes);

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Bytes> for Name {
    type Error = Violation;
    fn try_from(value: Bytes) -> Result<Self, Violation> {
        is_name(&value)
            .then_some(Name(value))
            .ok_or(Violation::InvalidName)
    }
}

struct Digest(Bytes);

impl TryFrom<Bytes> for Digest {
    type Error = Violation;
    fn try_from(value: Bytes) -> Result<Self, Violation> {
        (value.len() == 32)
            .then_some(Digest(value))
            .ok_or(Violation::InvalidDigest)
    }
}

struct SymlinkTarget(Bytes);

impl TryFrom<Bytes> for SymlinkTarget {
    type Error = Violation;
    fn try_from(value: Bytes) -> Result<Self, Violation> {
        let target = is_symlink_target(&value).then_some(SymlinkTarget(value));
        target.ok_or(Violation::InvalidSymlinkTarget)
    }
}

enum Node {
    Directory {
        digest: Digest,
        size: u64,
    },
    File {
        digest: Digest,
        size: u64,
        executable: bool,
    },
    Symlink {
        target: SymlinkTarget,
    },
}

/// What upstream calls `into_name_and_node`.
fn into_name_and_node(node: proto::Node) -> Result<(Name, Node), Violation> {
    match node.node.ok_or(Violation::Required)? {
        proto::node::Node::Directory(node) => Ok((
            node.name.try_into()?,
            Node::Directory {
                digest: node.digest.try_into()?,
                size: node.size,
            },
        )),
        proto::node::Node::File(node) => Ok((
            node.name.try_into()?,
            Node::File {
                digest: node.digest.try_into()?,
                size: node.size,
                executable: node.executable,
            },
        )),
        proto::node::Node::Symlink(node) => Ok((
            node.name.try_into()?,
            Node::Symlink {
                target: node.target.try_into()?,
            },
        )),
    }
}

/// What upstream calls `from_name_and_node`.
fn from_name_and_node((Name(name), node): (Name, Node)) -> proto::Node {
    let node = match node {
        Node::Directory { digest, size } => proto::node::Node::Directory(proto::DirectoryNode {
            name,
            digest: digest.0,
            size,
        }),
        Node::File {
            digest,
            size,
            executable,
        } => proto::node::Node::File(proto::FileNode {
            name,
            digest: digest.0,
            size,
            executable,
        }),
        Node::Symlink { target } => proto::node::Node::Symlink(proto::SymlinkNode {
            name,
            target: target.0,
        }),
    };
    proto::Node { node: Some(node) }
}

#[derive(PartialEq, Eq, Hash)]
enum BuildConstraint {
    System(String),
    MinMemory(u64),
    AvailableReadOnlyPath(PathBuf),
}

fn into_constraints(
    message: proto::BuildConstraints,
) -> Result<HashSet<BuildConstraint>, Violation> {
    ensure(!message.system.is_empty(), Violation::Required)?;
    let mut constraints = HashSet::from([
        BuildConstraint::System(message.system),
        BuildConstraint::MinMemory(message.min_memory),
    ]);
    for path in &message.available_ro_paths {
        ensure(is_host_path(path), Violation::InvalidPath)?;
        let path = BuildConstraint::AvailableReadOnlyPath(PathBuf::from(path));
        ensure(constraints.insert(path), Violation::Duplicate)?;
    }
    Ok(constraints)
}

/// Upstream's order would be the set's, which is none.
fn from_constraints(constraints: HashSet<BuildConstraint>) -> proto::BuildConstraints {
    let mut message = proto::BuildConstraints::default();
    for constraint in constraints {
        match constraint {
            BuildConstraint::System(system) => message.system = system,
            BuildConstraint::MinMemory(bytes) => message.min_memory = bytes,
            BuildConstraint::AvailableReadOnlyPath(path) => {
                message.available_ro_paths.push(path_to_string(&path));
            }
        }
    }
    message.available_ro_paths.sort();
    message
}

fn path_to_string(path: &Path) -> String {
    path.to_str().expect("it was a string").to_string()
}

struct BuildRequest {
    inputs: BTreeMap<Name, Node>,
    command_args: Vec<String>,
    outputs: BTreeSet<PathBuf>,
    environment_vars: BTreeMap<String, Bytes>,
    constraints: Option<HashSet<BuildConstraint>>,
}

impl TryFrom<proto::BuildRequest> for BuildRequest {
    type Error = Violation;
    fn try_from(message: proto::BuildRequest) -> Result<Self, Violation> {
        ensure(!message.command_args.is_empty(), Violation::Required)?;
        for arg in &message.command_args {
            ensure(!has_nul(arg.as_bytes()), Violation::InvalidArg)?;
        }
        let mut inputs = BTreeMap::new();
        for node in &message.inputs {
            let (name, node) = into_name_and_node(node.clone())?;
            ensure(
                inputs.insert(name.clone(), node).is_none(),
                Violation::Duplicate,
            )?;
        }
        let mut outputs = BTreeSet::new();
        for output in &message.outputs {
            ensure(is_name(output.as_bytes()), Violation::InvalidName)?;
            let is_input = inputs.contains_key(output.as_bytes());
            ensure(!is_input, Violation::OutputIsInput)?;
            ensure(outputs.insert(PathBuf::from(output)), Violation::Duplicate)?;
        }
        let mut environment_vars = BTreeMap::new();
        for proto::EnvVar { key, value } in message.environment_vars {
            ensure(is_env_key(&key), Violation::InvalidEnvKey)?;
            ensure(!has_nul(&value), Violation::InvalidEnvValue)?;
            let before = environment_vars.insert(key, value);
            ensure(before.is_none(), Violation::Duplicate)?;
        }
        Ok(Self {
            inputs,
            command_args: message.command_args,
            outputs,
            environment_vars,
            constraints: message.constraints.map(into_constraints).transpose()?,
        })
    }
}

impl From<BuildRequest> for proto::BuildRequest {
    fn from(request: BuildRequest) -> Self {
        let variables = request.environment_vars.into_iter();
        Self {
            command_args: request.command_args,
            outputs: request
                .outputs
                .iter()
                .map(|path| path_to_string(path))
                .collect(),
            environment_vars: variables
                .map(|(key, value)| proto::EnvVar { key, value })
                .collect(),
            inputs: request.inputs.into_iter().map(from_name_and_node).collect(),
            constraints: request.constraints.map(from_constraints),
        }
    }
}

fn ensure(holds: bool, otherwise: Violation) -> Result<(), Violation> {
    holds.then_some(()).ok_or(otherwise)
}
