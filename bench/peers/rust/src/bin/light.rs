// SPDX-License-Identifier: MIT
//! Rust light: prost's messages are checked as they are and sorted in place; no domain types.

use bytes::Bytes;
use prost::Message;
use tvix_build_bench_peers::peer::{serve, Verdict};
use tvix_build_bench_peers::proto::{node, BuildConstraints, BuildRequest, Node};
use tvix_build_bench_peers::values::{
    has_nul, is_env_key, is_host_path, is_name, is_symlink_target,
};

fn main() -> std::io::Result<()> {
    serve(check)
}

fn check(data: Bytes) -> Verdict {
    let mut request = match BuildRequest::decode(data) {
        Ok(request) => request,
        Err(_) => return Verdict::Invalid,
    };
    let sorted = checked_and_sorted(&mut request);
    let digest = || blake3::hash(&request.encode_to_vec()).into();
    match sorted {
        Some(true) => Verdict::Valid(digest()),
        Some(false) => Verdict::Unsorted(digest()),
        None => Verdict::Invalid,
    }
}

/// Sorts the lists; whether they had been sorted, or None if another rule is violated.
fn checked_and_sorted(request: &mut BuildRequest) -> Option<bool> {
    let args = &request.command_args;
    let mut good = !args.is_empty() && !args.iter().any(|arg| has_nul(arg.as_bytes()));
    good &= request.outputs.iter().all(|name| is_name(name.as_bytes()));
    good &= request
        .environment_vars
        .iter()
        .all(|variable| is_env_key(&variable.key) && !has_nul(&variable.value));
    good &= request.inputs.iter().all(is_node);
    good &= request.constraints.as_ref().map_or(true, are_constraints);
    if !good {
        return None;
    }
    let mut sorted = sort(&mut request.outputs, |output| output.as_bytes())?;
    sorted &= sort(&mut request.environment_vars, |variable| {
        variable.key.as_bytes()
    })?;
    sorted &= sort(&mut request.inputs, name_of)?;
    if let Some(constraints) = &mut request.constraints {
        sorted &= sort(&mut constraints.available_ro_paths, |path| path.as_bytes())?;
    }
    let is_input = |output: &String| {
        let found = request
            .inputs
            .binary_search_by(|node| name_of(node).cmp(output.as_bytes()));
        found.is_ok()
    };
    if request.outputs.iter().any(is_input) {
        return None;
    }
    Some(sorted)
}

/// Whether the list was sorted, which it is afterwards; None if a key is there twice.
fn sort<T>(list: &mut [T], key: fn(&T) -> &[u8]) -> Option<bool> {
    let pairs = list.windows(2).map(|pair| (key(&pair[0]), key(&pair[1])));
    let sorted = pairs.clone().all(|(a, b)| a < b);
    if sorted {
        return Some(true);
    }
    let sorted = pairs.clone().all(|(a, b)| a <= b);
    list.sort_unstable_by(|a, b| key(a).cmp(key(b)));
    let distinct = list.windows(2).all(|pair| key(&pair[0]) != key(&pair[1]));
    distinct.then_some(sorted)
}

fn name_of(node: &Node) -> &[u8] {
    match &node.node {
        Some(node::Node::Directory(node)) => &node.name,
        Some(node::Node::File(node)) => &node.name,
        Some(node::Node::Symlink(node)) => &node.name,
        None => b"",
    }
}

fn is_node(node: &Node) -> bool {
    let rest = match &node.node {
        Some(node::Node::Directory(node)) => node.digest.len() == 32,
        Some(node::Node::File(node)) => node.digest.len() == 32,
        Some(node::Node::Symlink(node)) => is_symlink_target(&node.target),
        None => false,
    };
    rest && is_name(name_of(node))
}

fn are_constraints(constraints: &BuildConstraints) -> bool {
    let paths = &constraints.available_ro_paths;
    !constraints.system.is_empty() && paths.iter().all(|path| is_host_path(path))
}
