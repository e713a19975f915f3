// SPDX-License-Identifier: MIT
//! The messages of proto/tvix/**, as prost_build makes them with `bytes(["."])`, as upstream does.

use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildRequest {
    #[prost(string, repeated, tag = "1")]
    pub command_args: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub environment_vars: Vec<EnvVar>,
    #[prost(message, repeated, tag = "4")]
    pub inputs: Vec<Node>,
    #[prost(message, optional, tag = "5")]
    pub constraints: Option<BuildConstraints>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EnvVar {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildConstraints {
    #[prost(string, tag = "1")]
    pub system: String,
    #[prost(uint64, tag = "2")]
    pub min_memory: u64,
    #[prost(string, repeated, tag = "3")]
    pub available_ro_paths: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    #[prost(oneof = "node::Node", tags = "1, 2, 3")]
    pub node: Option<node::Node>,
}

pub mod node {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Node {
        #[prost(message, tag = "1")]
        Directory(super::DirectoryNode),
        #[prost(message, tag = "2")]
        File(super::FileNode),
        #[prost(message, tag = "3")]
        Symlink(super::SymlinkNode),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DirectoryNode {
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub digest: Bytes,
    #[prost(uint64, tag = "3")]
    pub size: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FileNode {
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub digest: Bytes,
    #[prost(uint64, tag = "3")]
    pub size: u64,
    #[prost(bool, tag = "4")]
    pub executable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SymlinkNode {
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub target: Bytes,
}
