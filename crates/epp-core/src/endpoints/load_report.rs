//! Load reports: what the header `endpoint-load-metrics` of a response says of its server's load.
//!
//! The header is that of Open Request Cost Aggregation (ORCA), with the metrics that vLLM and Triton name in it:
//!
//! ```text
//! endpoint-load-metrics: TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=2.0
//! endpoint-load-metrics: JSON {"named_metrics": {"kv_cache_usage_perc": 0.4, "num_requests_waiting": 2.0}}
//! ```
//!
//! The name of the format may be missing, and a colon may take the place of an equals sign, as in Envoy's own reader. Values
//! are taken as those of metrics pages are; one that is impossible, or cannot be read, is unknown.

use memchr::{memchr, memchr2};

use super::json_numbers;
use super::scan::{count, share};
use crate::scheduling::Metrics;

/// Longer headers are not read. vLLM's has 80 bytes; other servers may add metrics of their own.
const MAX_BYTES: usize = 4 << 10;

/// The map that custom metrics are in.
const NAMED_METRICS: &[u8] = b"named_metrics";

/// The load of a server, as far as it was reported.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoadReport {
    /// Requests waiting in the server's queue.
    waiting: Option<f64>,
    /// KV-cache utilization, 0 to 1.
    kv_usage: Option<f64>,
}

impl LoadReport {
    /// Reads the header's value. Returns `None` if it says nothing that is known here.
    pub fn read(value: &[u8]) -> Option<Self> {
        let mut report = Self::default();
        if value.len() > MAX_BYTES {
            return None;
        }
        // The names of the formats have four letters.
        let (format, rest) = value.split_first_chunk::<4>()?;
        let body = match format {
            b"TEXT" | b"JSON" => rest.trim_ascii_start(),
            _ => value,
        };
        if body.starts_with(b"{") {
            json_numbers::read(body, &mut |depth, holder, name, number| {
                if depth == 2 && holder == NAMED_METRICS {
                    report.set(name, Some(number));
                }
            })?;
        } else {
            report.read_entries(body);
        }
        (report != Self::default()).then_some(report)
    }

    /// Reads entries of the form `named_metrics.name=value`, separated by commas.
    fn read_entries(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let end = memchr(b',', rest).unwrap_or(rest.len());
            let (entry, more) = rest.split_at_checked(end).unwrap_or_default();
            rest = more.get(1..).unwrap_or_default();
            let entry = entry.trim_ascii().strip_prefix(NAMED_METRICS);
            let Some(entry) = entry.and_then(|entry| entry.strip_prefix(b".")) else {
                continue;
            };
            let Some(end) = memchr2(b'=', b':', entry) else {
                continue;
            };
            let (name, value) = entry.split_at_checked(end).unwrap_or_default();
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let value = std::str::from_utf8(value).ok();
            self.set(
                name.trim_ascii_end(),
                value.and_then(|value| value.parse().ok()),
            );
        }
    }

    /// Takes a named metric, if it is one of those that servers report. Of one that comes twice the last counts.
    #[inline(never)]
    fn set(&mut self, name: &[u8], value: Option<f64>) {
        match name {
            b"num_requests_waiting" => self.waiting = value.and_then(count),
            // vLLM's name, and Triton's.
            b"kv_cache_usage_perc" | b"kv_cache_utilization" => {
                self.kv_usage = value.and_then(share);
            }
            _ => {}
        }
    }

    /// Returns the waiting requests and the KV-cache utilization of an endpoint with these metrics, where the report says
    /// something of them. A value that its page lacks stays unknown: the document may have it read from another family.
    pub fn values(&self, metrics: &Metrics) -> (Option<f64>, Option<f64>) {
        // A report does not say which engine a value is of.
        let counts = |known: &Option<f64>| known.is_some() && !metrics.several_series;
        (
            self.waiting.filter(|_| counts(&metrics.waiting)),
            self.kv_usage.filter(|_| counts(&metrics.kv_usage)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<(Option<f64>, Option<f64>)> {
        let report = LoadReport::read(value.as_bytes())?;
        Some((report.waiting, report.kv_usage))
    }

    #[test]
    fn both_formats_are_read_as_servers_write_them() {
        for value in [
            "TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=2.0",
            r#"JSON {"named_metrics": {"kv_cache_usage_perc": 0.4, "num_requests_waiting": 2.0}}"#,
            "TEXT named_metrics.kv_cache_usage_perc=4e-1,named_metrics.num_requests_waiting=2",
            "named_metrics.num_requests_waiting:2,cpu_utilization:0.3,named_metrics.kv_cache_usage_perc:0.4",
            r#"{"cpu_utilization":0.3,"named_metrics":{"other":"x","num_requests_waiting":2,"kv_cache_usage_perc":0.4}}"#,
            "JSON  {\"named_metrics\":{\"kv_cache_utilization\":0.4,\"num_requests_waiting\":2}} ",
        ] {
            assert_eq!(read(value), Some((Some(2.0), Some(0.4))), "{value}");
        }
        let triton = "TEXT named_metrics.kv_cache_utilization=0.250000, named_metrics.max_token_capacity=6144";
        assert_eq!(read(triton), Some((None, Some(0.25))));
    }

    #[test]
    fn values_are_taken_as_those_of_pages() {
        let waiting = |value: &str| {
            let text = format!("TEXT named_metrics.num_requests_waiting={value}");
            read(&text).and_then(|(waiting, _)| waiting)
        };
        assert_eq!(waiting("0.0"), Some(0.0));
        assert_eq!(waiting("2.9"), Some(2.0));
        for value in ["-1", "NaN", "inf", "1e400", "", "2x", "0x2", "2 3", "\u{0}"] {
            assert_eq!(waiting(value), None, "{value}");
        }
        let usage = |value: &str| {
            let text = format!("JSON {{\"named_metrics\": {{\"kv_cache_usage_perc\": {value}}}}}");
            read(&text).and_then(|(_, usage)| usage)
        };
        assert_eq!(usage("1.5"), Some(1.0));
        for value in ["-0.1", "1e400", "\"0.5\"", "null", "[]", "NaN"] {
            assert_eq!(usage(value), None, "{value}");
        }
    }

    #[test]
    fn what_is_not_understood_is_unknown() {
        for value in [
            "",
            "TEXT",
            "TEXT ",
            "BIN CZqZmZmZmbk=",
            "TEXT kv_cache_usage_perc=0.4",
            "TEXT named_metrics.kv_cache_usage_perc",
            "TEXT named_metricskv_cache_usage_perc=0.4",
            "JSON {\"kv_cache_usage_perc\": 0.4}",
            "JSON {\"a\": {\"named_metrics\": {\"kv_cache_usage_perc\": 0.4}}}",
            "JSON {\"named_metrics\": {\"kv_cache_usage_perc\": 0.4}",
            "JSON {\"named_metrics\": {\"a\": {\"kv_cache_usage_perc\": 0.4}}}",
            "\u{ff}\u{fe}",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
        let last =
            "TEXT named_metrics.num_requests_waiting=1, named_metrics.num_requests_waiting=x";
        assert_eq!(read(last), None, "the last one counts");
        let known = "TEXT named_metrics.num_requests_waiting=1";
        let padded = |bytes: usize| format!("{known},{}", "x".repeat(bytes - known.len() - 1));
        assert!(read(&padded(MAX_BYTES)).is_some());
        assert_eq!(read(&padded(MAX_BYTES + 1)), None);
    }

    #[test]
    fn only_values_that_the_page_has_are_replaced() {
        let report = LoadReport::read(
            b"TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=2",
        )
        .unwrap();
        let values = |waiting, kv_usage, several_series| {
            report.values(&Metrics {
                waiting,
                kv_usage,
                several_series,
                ..Metrics::default()
            })
        };
        assert_eq!(values(Some(9.0), Some(0.9), false), (Some(2.0), Some(0.4)));
        assert_eq!(values(Some(9.0), None, false), (Some(2.0), None));
        assert_eq!(values(None, Some(0.9), false), (None, Some(0.4)));
        assert_eq!(values(Some(9.0), Some(0.9), true), (None, None));
    }
}
