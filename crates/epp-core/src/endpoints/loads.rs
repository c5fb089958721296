//! SGLang's `/v1/loads`: the load of each data-parallel rank of a server, as JSON.
//!
//! The answer is short and cheap: since May 2026 SGLang takes it from shared memory, which its scheduler writes at least every
//! 15 decoding steps. Of a server with two ranks (with more names, which are not read):
//!
//! ```text
//! {"version": "0.5.12", "loads": [
//!   {"dp_rank": 0, "num_running_reqs": 5, "num_waiting_reqs": 2, "token_usage": 0.4},
//!   {"dp_rank": 1, "num_running_reqs": 3, "num_waiting_reqs": 0, "token_usage": 0.1}]}
//! ```
//!
//! As on metrics pages, requests of ranks add up, and the greatest KV-cache utilization counts. The answer says nothing of the
//! size of the KV cache, the model or adapters.

use super::json_numbers;
use super::scan::{count, share};
use crate::scheduling::Metrics;

/// The path, with only the part of the answer that is read.
pub const PATH: &str = "/v1/loads?include=core";

/// Longer answers are not read. A rank takes some 300 bytes.
pub const MAX_BYTES: usize = 256 << 10;

/// The list of ranks.
const LOADS: &[u8] = b"loads";

/// The containers that a rank's numbers are in: the answer, the list, and the rank's object.
const DEPTH: usize = 3;

/// The load of a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loads {
    waiting: f64,
    running: f64,
    kv_usage: f64,
}

impl Loads {
    /// Reads an answer. Returns `None` unless it has all three values and each is possible: a metrics page may say more.
    pub fn read(text: &[u8]) -> Option<Self> {
        let (mut waiting, mut running, mut kv_usage) = (None, None, None);
        let mut is_sound = true;
        json_numbers::read(text, &mut |depth, holder, name, number| {
            if depth != DEPTH || holder != LOADS {
                return;
            }
            let value = match name {
                b"num_waiting_reqs" | b"num_running_reqs" => count(number),
                b"token_usage" => share(number),
                _ => return,
            };
            is_sound &= value.is_some();
            let value = value.unwrap_or_default();
            match name {
                b"num_waiting_reqs" => waiting = Some(waiting.unwrap_or(0.0) + value),
                b"num_running_reqs" => running = Some(running.unwrap_or(0.0) + value),
                _ => kv_usage = Some(value.max(kv_usage.unwrap_or(0.0))),
            }
        })?;
        let (waiting, running, kv_usage) = (waiting?, running?, kv_usage?);
        is_sound &= waiting.is_finite() && running.is_finite();
        is_sound.then_some(Self {
            waiting,
            running,
            kv_usage,
        })
    }

    /// Returns an endpoint's metrics with this load, and all else as it is known.
    pub fn metrics(self, known: &Metrics) -> Metrics {
        Metrics {
            from_loads: true,
            waiting: Some(self.waiting),
            running: Some(self.running),
            kv_usage: Some(self.kv_usage),
            // `/v1/loads` has no such counter: the page's last value would look like an engine that stands still.
            generated: None,
            ..known.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<[f64; 3]> {
        let loads = Loads::read(text.as_bytes())?;
        Some([loads.waiting, loads.running, loads.kv_usage])
    }

    /// An answer with these ranks, as SGLang writes it, the parts of others included.
    fn answer(ranks: &[&str]) -> String {
        let ranks: Vec<String> = ranks
            .iter()
            .map(|rank| {
                format!(
                    r#"{{"dp_rank":0,"timestamp":1780000000.25,{rank},"num_used_tokens":9,"gen_throughput":0.0,
                    "queues":{{"waiting":77,"num_waiting_reqs":77}},"memory":null}}"#
                )
            })
            .collect();
        format!(
            r#"{{"timestamp":"2026-06-01T10:30:00+00:00","version":"0.5.12","accelerator":null,"num_accelerators":2,
            "aggregate":{{"num_waiting_reqs":99}},"loads":[{}]}}"#,
            ranks.join(",")
        )
    }

    fn rank(running: &str, waiting: &str, usage: &str) -> String {
        format!(
            r#""num_running_reqs":{running},"num_waiting_reqs":{waiting},"token_usage":{usage}"#
        )
    }

    #[test]
    fn requests_of_ranks_add_up_and_the_greatest_utilization_counts() {
        let one = answer(&[&rank("5", "2", "0.41")]);
        assert_eq!(read(&one), Some([2.0, 5.0, 0.41]));
        let ranks = [
            rank("5", "2", "0.1"),
            rank("3", "0", "0.75"),
            rank("0", "4", "0"),
        ];
        let several = answer(&ranks.each_ref().map(String::as_str));
        assert_eq!(read(&several), Some([6.0, 8.0, 0.75]));
        let full = answer(&[&rank("1", "0", "1.02")]);
        assert_eq!(read(&full), Some([0.0, 1.0, 1.0]), "as on pages");
    }

    #[test]
    fn an_answer_with_a_missing_or_impossible_value_is_not_taken() {
        let good = rank("5", "2", "0.4");
        for bad in [
            rank("-1", "2", "0.4"),
            rank("5", "1e400", "0.4"),
            rank("5", "2", "-0.1"),
            rank("5", "2", "1e999"),
            rank("NaN", "2", "0.4"),
            rank("5", "Infinity", "0.4"),
        ] {
            // Whichever comes last.
            assert_eq!(read(&answer(&[&good, &bad])), None, "{bad}");
            assert_eq!(read(&answer(&[&bad, &good])), None, "{bad}");
        }
        for missing in [
            rank("null", "2", "0.4"),
            rank("5", "\"2\"", "0.4"),
            rank("5", "2", "[0.4]"),
            "\"num_running_reqs\":5,\"num_waiting_reqs\":2".to_owned(),
        ] {
            assert_eq!(read(&answer(&[&missing])), None, "{missing}");
        }
        let sum = answer(&[&rank("1e308", "0", "0"), &rank("1e308", "0", "0")]);
        assert_eq!(read(&sum), None);
        for text in [
            "",
            "{}",
            "[]",
            r#"{"loads":[]}"#,
            "vllm:num_requests_waiting 0",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let flat = format!("{{{good}}}");
        assert_eq!(read(&flat), None);
        assert_eq!(read(&format!(r#"{{"loads":[[{flat}]]}}"#)), None);
        assert_eq!(read(&format!(r#"{{"other":[{flat}]}}"#)), None);
        let cut = answer(&[&good]);
        assert_eq!(read(&cut[..cut.len() - 1]), None);
    }

    #[test]
    fn thousands_of_ranks_are_read_in_one_pass_and_deep_answers_are_refused() {
        let rank = rank("1", "2", "0.5");
        let object = format!("{{{rank}}},");
        let ranks = MAX_BYTES / object.len() - 1;
        let many = format!(r#"{{"loads":[{}{{{rank}}}]}}"#, object.repeat(ranks - 1));
        assert!(many.len() <= MAX_BYTES);
        let count = ranks as f64;
        assert_eq!(read(&many), Some([2.0 * count, count, 0.5]));
        let deep = format!(r#"{{"loads":[{{{rank},"x":{}"#, "[".repeat(MAX_BYTES));
        assert_eq!(read(&deep), None);
    }
}
