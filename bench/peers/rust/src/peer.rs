// SPDX-License-Identifier: MIT
//! The program around a peer: reads a corpus, then does repetitions as it is told (bench/README.md).

use std::io::{BufRead, Write};
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

/// What a peer finds out about one message.
#[derive(Clone, Copy, PartialEq)]
pub enum Verdict {
    /// No rule is violated.
    Valid([u8; 32]),
    /// Only `not_sorted` is; the digest is that of the sorted message.
    Unsorted([u8; 32]),
    Invalid,
}

/// Checks, sorts, encodes and hashes one message, a slice of the corpus that shares its memory.
pub type Check = fn(Bytes) -> Verdict;

/// Serves repetitions over the corpus that the command line names until stdin ends.
pub fn serve(check: Check) -> std::io::Result<()> {
    let path = std::env::args_os().nth(1).expect("usage: PEER CORPUS");
    let corpus = Bytes::from(std::fs::read(path)?);
    let ranges = split(&corpus);
    let mut results = Results {
        valid: 0,
        digests: vec![0; ranges.len() * 32],
    };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("digests ") {
            std::fs::write(path, &results.digests)?;
            println!("{{}}");
        } else {
            let repetitions = line.trim_start_matches("run ").parse().expect("run N");
            let seconds: Vec<f64> = (0..repetitions)
                .map(|_| repeat(check, &corpus, &ranges, &mut results))
                .collect();
            println!(
                "{{\"requests\": {}, \"bytes\": {}, \"seconds\": {:?}, \"valid\": {}, \
                 \"digest\": \"{}\"}}",
                ranges.len(),
                ranges.iter().map(|range| range.len()).sum::<usize>(),
                seconds,
                results.valid,
                blake3::hash(&results.digests).to_hex(),
            );
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

struct Results {
    valid: usize,
    /// 32 bytes a message, zeros where there is no digest.
    digests: Vec<u8>,
}

/// One repetition; returns its seconds.
fn repeat(check: Check, corpus: &Bytes, ranges: &[Range<usize>], results: &mut Results) -> f64 {
    let start = Instant::now();
    results.valid = 0;
    for (range, digest) in ranges.iter().zip(results.digests.chunks_exact_mut(32)) {
        match check(corpus.slice(range.clone())) {
            Verdict::Valid(hash) => {
                results.valid += 1;
                digest.copy_from_slice(&hash);
            }
            Verdict::Unsorted(hash) => digest.copy_from_slice(&hash),
            Verdict::Invalid => digest.fill(0),
        }
    }
    start.elapsed().as_secs_f64()
}

/// Where the messages of a size-delimited stream lie.
fn split(stream: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let size = prost::decode_length_delimiter(rest).expect("a length");
        let begin = stream.len() - rest.len() + prost::length_delimiter_len(size);
        ranges.push(begin..begin + size);
        rest = &stream[begin + size..];
    }
    ranges
}
