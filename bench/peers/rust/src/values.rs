// SPDX-License-Identifier: MIT
//! The rules that look at one value (docs/canonical-form.md).

/// `invalid_name`: one path component of 1 to 255 bytes.
pub fn is_name(value: &[u8]) -> bool {
    !value.is_empty()
        && value.len() <= 255
        && value != b"."
        && value != b".."
        && !value.iter().any(|&byte| byte == b'/' || byte == 0)
}

/// `invalid_symlink_target`: 1 to 4095 bytes without NUL.
pub fn is_symlink_target(value: &[u8]) -> bool {
    !value.is_empty() && value.len() <= 4095 && !has_nul(value)
}

/// `invalid_env_key`: not empty, without "=" and NUL.
pub fn is_env_key(value: &str) -> bool {
    !value.is_empty() && !value.bytes().any(|byte| byte == b'=' || byte == 0)
}

/// `invalid_path`: an absolute clean path outside the store.
pub fn is_host_path(value: &str) -> bool {
    let relative = match value.strip_prefix('/') {
        Some(relative) => relative,
        None => return false,
    };
    if relative.is_empty() {
        return true;
    }
    let clean = |part: &str| !matches!(part, "" | "." | "..");
    let mut start = relative.split('/');
    let in_store = start.next() == Some("nix") && start.next() == Some("store");
    !in_store && !has_nul(value.as_bytes()) && relative.split('/').all(clean)
}

pub fn has_nul(value: &[u8]) -> bool {
    value.contains(&0)
}
