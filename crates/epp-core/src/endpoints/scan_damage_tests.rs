//! Pages that are cut, damaged, huge or hostile never cause a panic or a wrong value.

use super::tests::{gauges, lora_of, metrics, vllm, waiting, LORA_AFTER, PAGES};
use super::*;
use crate::endpoints::lora::{MAX_ADAPTERS, MAX_ADAPTER_NAME};
use crate::scheduling::Lora;

#[test]
fn too_many_adapters_are_ignored() {
    let series = |names: &str| format!("{{running_lora_adapters=\"{names}\",max_lora=\"2\"}} 1");
    assert!(lora_of(&[&series(&"a,".repeat(MAX_ADAPTERS))]).is_some());
    assert!(lora_of(&[&series(&"a,".repeat(MAX_ADAPTERS + 1))]).is_none());
    assert!(lora_of(&[&series(&"a".repeat(MAX_ADAPTER_NAME))]).is_some());
    assert!(lora_of(&[&series(&"a".repeat(MAX_ADAPTER_NAME + 1))]).is_none());
}

#[test]
fn other_texts_are_rejected() {
    for page in [
        &b""[..],
        b"\n",
        b"\n\n\n",
        b"404 page not found\n",
        b"{\"error\":\"nothing here\"}\n",
        b"\0\xff\xfe# TYPE \n",
        b"# TYPE vllm:num_requests_waiting gauge\n",
    ] {
        assert_eq!(vllm(page), None, "{page:?}");
    }
}

#[test]
fn a_cut_page_is_rejected_or_agrees_with_the_whole_page() {
    for page in PAGES {
        let whole = vllm(page).unwrap();
        for end in 0..page.len() {
            let cut = &page[..end];
            let Some(found) = vllm(cut) else {
                continue;
            };
            assert!(cut.ends_with(b"\n"));
            let (found, whole) = (found.metrics, &whole.metrics);
            assert!(found.waiting.is_none() || found.waiting == whole.waiting);
            assert!(found.running.is_none() || found.running == whole.running);
            assert!(found.kv_usage.is_none() || found.kv_usage == whole.kv_usage);
            assert!(found.block_size.is_none() || found.block_size == whole.block_size);
            assert!(found.num_blocks.is_none() || found.num_blocks == whole.num_blocks);
        }
    }
}

/// Asserts what holds for the values of any page.
fn assert_possible(page: &Page) {
    let metrics = &page.metrics;
    let counts = [metrics.waiting, metrics.running];
    assert!(counts
        .into_iter()
        .flatten()
        .all(|count| count >= 0.0 && count.is_finite()));
    assert!(metrics
        .kv_usage
        .is_none_or(|usage| (0.0..=1.0).contains(&usage)));
    assert!(metrics.block_size != Some(0) && metrics.num_blocks != Some(0));
    let adapters = metrics.lora.active.iter().chain(&metrics.lora.waiting);
    assert!(adapters
        .clone()
        .all(|name| !name.is_empty() && name.trim() == name));
    assert!(page.lora_seen || metrics.lora == Lora::default());
}

#[test]
fn damaged_pages_never_panic_or_give_impossible_values() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut read = 0;
    for round in 0..1_500 {
        let mut page = PAGES[round % PAGES.len()].to_vec();
        for _ in 0..rng.usize(1..200) {
            let at = rng.usize(..page.len());
            match rng.u8(..4) {
                0 => page[at] ^= 1 << rng.u8(..8),
                1 => page[at] = b"\n\"\\{}=, #"[rng.usize(..9)],
                2 => page.truncate(page.len() - rng.usize(..20).min(page.len() / 2)),
                _ => {
                    let from = rng.usize(..page.len());
                    let part = page[from..page.len().min(from + 50)].to_vec();
                    page.splice(at..at, part);
                }
            }
        }
        page.push(b'\n');
        if let Some(found) = vllm(&page) {
            read += 1;
            assert_possible(&found);
        }
    }
    assert!(read > 1_000, "{read}");
}

#[test]
fn damaged_wanted_lines_never_panic_or_give_impossible_values() {
    // Small pages that consist of wanted lines, so that every change hits one.
    let wanted = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line);
        line.contains("num_requests_") || line.contains("_usage_perc") || line.contains("lora_req")
    };
    let lines: Vec<&[u8]> = LORA_AFTER.split_inclusive(|byte| *byte == b'\n').collect();
    let page: Vec<u8> = lines
        .into_iter()
        .filter(wanted)
        .collect::<Vec<_>>()
        .concat();
    assert!(vllm(&page).unwrap().lora_seen);
    let mut rng = fastrand::Rng::with_seed(8);
    for _ in 0..20_000 {
        let mut page = page.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..page.len());
            page[at] = match rng.bool() {
                true => rng.u8(..),
                false => b"\n\"\\{}=, #"[rng.usize(..9)],
            };
        }
        if let Some(found) = vllm(&page) {
            assert_possible(&found);
        }
    }
}

#[test]
fn pages_of_any_size_and_shape_are_handled() {
    let kind = b"# TYPE vllm:num_requests_waiting gauge\n".to_vec();
    let huge = 2 << 20;
    // One line of 2 MB, one label of 2 MB, a brace or quote that never ends.
    for filler in [
        &b"x"[..],
        b" ",
        b"\t#",
        b"{",
        b"{a=\"",
        b"{a=\"b\",",
        b"\\",
        b"\0",
    ] {
        let mut page = kind.clone();
        page.extend(b"vllm:num_requests_waiting");
        while page.len() < huge {
            page.extend(filler);
        }
        page.push(b'\n');
        assert_eq!(vllm(&page), None, "{filler:?}");
    }
    let label = format!("{{a=\"{}\"}} 5", "x".repeat(huge));
    assert_eq!(waiting(&[&label]), Some(5.0));
    // As many series as fit, then a wanted family behind 2 MB of other lines.
    let many = vec!["{engine=\"0\"} 5"; 40_000];
    assert_eq!(waiting(&many), Some(5.0));
    let mut page = b"other 1\n".repeat(huge / 8);
    page.extend(gauges(&[("vllm:num_requests_waiting", &[" 5"])]).bytes());
    assert_eq!(metrics(&page).waiting, Some(5.0));
}
