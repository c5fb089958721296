//! Times the parts of a decision with 10, 100 and 1,000 endpoints: hashing, look-up, learning, the
//! scheduling cycle; and those of a poll: reading a metrics page, and publishing the snapshot.

mod timing;

use criterion::{Criterion, Throughput};
use epp_core::endpoints::loads::Loads;
use epp_core::endpoints::partial_page::PageReader;
use epp_core::endpoints::scan::Extraction;
use epp_core::endpoints::store::{EndpointStore, Member};
use epp_core::flow::Saturation;
use epp_core::plugins::saturation::utilization_detector::UtilizationDetector;
use epp_core::plugins::source::core_metrics_extractor::CoreMetricsExtractor;
use epp_core::prefix::digest::{BlockHasher, BlockSpec};
use epp_core::prefix::index::Index;
use epp_core::prefix::key::{Key, Secret};
use epp_core::prefix::walk::{Part, Walk};
use epp_core::scheduling::{Cycle, Health, Needs, PrefixMatch, RequestView, Scratch, Slot};
use epp_core::time::Timestamp;
use epp_sync::snapshot;
use native_benches::{chat, metrics, plan, pool, Order, POOLS};
use timing::{criterion, measure};

/// The default prompt window of GIE v1.
const WINDOW: BlockSpec = BlockSpec {
    block_bytes: 64,
    max_blocks: Some(256),
    keep_partial: false,
};

/// Endpoints that hold a known prompt.
const HOLDERS: u32 = 4;

/// A metrics page of a busy vLLM 0.32.
const PAGE: &[u8] = include_bytes!("../../../tests/fixtures/vllm-0.32/metrics_busy.txt");

/// An answer of SGLang's to `/v1/loads?include=core`, of one rank.
const LOADS: &str = include_str!("../../../fuzz/corpus/page/sglang-loads");

/// A secret key, as in the filter.
fn key() -> Key {
    Key::Secret(Secret::from(1))
}

/// Returns the digests of a prompt that fills the window, different for each number.
fn digests(number: usize) -> Vec<u64> {
    let mut hasher = BlockHasher::default();
    hasher.reset(WINDOW, &key());
    hasher.update(number.to_string().as_bytes());
    hasher.update(chat(20 << 10, Order::ModelFirst).as_bytes());
    hasher.prompts_from(0).flatten().copied().collect()
}

/// Returns an index in which each endpoint has ten prompts of its own, and some endpoints the prompt 0.
fn index(endpoints: usize) -> Index {
    let mut index = Index::new(64 << 20, &Secret::from(1));
    let mut add = |slot: u32, digests: &[u64]| {
        let empty = Index::new(1, &Secret::from(1));
        let mut walk = Walk::default();
        walk.advance(
            key().seed("bench", ""),
            |_| std::iter::once(digests),
            &empty,
        );
        walk.learn(&mut index, (Part::Primary, slot), 31_250, &mut |_, _| ());
    };
    for slot in 0..endpoints {
        (1..=10).for_each(|prompt| add(slot as u32, &digests(slot * 10 + prompt)));
    }
    (0..HOLDERS).for_each(|slot| add(slot, &digests(0)));
    index
}

fn hash(criterion: &mut Criterion) {
    let text = chat(16 << 10, Order::ModelFirst);
    let mut hasher = BlockHasher::default();
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(16 << 10));
    let key = key();
    measure(&mut group, "256 blocks of 64 bytes", || {
        hasher.reset(WINDOW, &key);
        hasher.update(text.as_bytes());
    });
}

fn look_up(criterion: &mut Criterion, endpoints: usize) {
    let mut index = index(endpoints);
    let (known, unknown) = (digests(0), digests(usize::MAX));
    let mut walk = Walk::default();
    let key = key();
    let mut group = criterion.benchmark_group(format!("{endpoints} endpoints"));
    for (name, digests) in [
        ("look-up of a known window", &known),
        ("look-up of an unknown one", &unknown),
    ] {
        measure(&mut group, name, || {
            walk.reset();
            let prompts = |_| std::iter::once(digests.as_slice());
            walk.advance(key.seed("bench", ""), prompts, &index);
            walk.ended()
        });
    }
    measure(&mut group, "looking up and learning a known window", || {
        walk.reset();
        walk.advance(
            key.seed("bench", ""),
            |_| std::iter::once(known.as_slice()),
            &index,
        );
        walk.learn(&mut index, (Part::Primary, 0), 31_250, &mut |_, _| ());
    });
    let mut salt = 0_u64;
    measure(&mut group, "looking up and learning an unknown one", || {
        salt += 1;
        walk.reset();
        let seed = key.seed("bench", &salt.to_string());
        walk.advance(seed, |_| std::iter::once(known.as_slice()), &index);
        walk.learn(&mut index, (Part::Primary, 0), 31_250, &mut |_, _| ());
    });
}

fn schedule(criterion: &mut Criterion, endpoints: usize) {
    let Some(plan) = plan(endpoints) else {
        return;
    };
    let pool = pool(endpoints);
    let mut scratch = Scratch::new(fastrand::Rng::with_seed(1));
    let prefix = [PrefixMatch {
        matched: &[256; HOLDERS as usize],
        total: 256.0,
        block_tokens: None,
    }];
    let request = RequestView {
        model: "bench",
        prefix: &prefix,
        ..RequestView::default()
    };
    let cycle = Cycle::new(&pool, request);
    let mut group = criterion.benchmark_group(format!("{endpoints} endpoints"));
    let detector = UtilizationDetector::new(5.0, 0.8);
    measure(&mut group, "saturation", || {
        Saturation::of(&detector, &pool)
    });
    measure(&mut group, "scheduling cycle", || {
        let decision = plan.scheduler.schedule(&cycle, 2, &mut scratch, None);
        decision.ok().map(|decision| decision.primary)
    });
}

fn publish(criterion: &mut Criterion, endpoints: usize) {
    let mut store = EndpointStore::default();
    let names = pool(endpoints);
    let members = names.iter().map(|(_, endpoint)| Member {
        name: endpoint.name.clone(),
        address: endpoint.address.to_string(),
        health: Health::Healthy,
        ..Member::default()
    });
    store.set_members(&members.collect::<Vec<_>>());
    (0..endpoints).for_each(|number| {
        store.set_metrics(
            Slot(number as u32),
            metrics(number),
            false,
            Timestamp::from_millis(1),
        );
    });
    let packed = snapshot::encode_metrics(&store);
    let mut group = criterion.benchmark_group(format!("{endpoints} endpoints"));
    measure(&mut group, "packing all metrics", || {
        snapshot::encode_metrics(&store)
    });
    measure(&mut group, "taking them over", || {
        let metrics = snapshot::decode_metrics(&packed).unwrap_or_default();
        store.adopt_metrics(metrics)
    });
}

fn page(criterion: &mut Criterion) {
    let extractor = CoreMetricsExtractor::default();
    let mut engines = extractor.engines.iter();
    let Some(vllm) = engines.find(|engine| engine.name == "vllm") else {
        return;
    };
    let extraction = Extraction::new(vllm, &Needs::METRICS);
    let mut group = criterion.benchmark_group("metrics page of vLLM 0.32");
    group.throughput(Throughput::Bytes(PAGE.len() as u64));
    measure(&mut group, "scan", || extraction.scan(PAGE).is_some());
    let mut known = PageReader::default();
    measure(&mut group, "read where what is wanted stood", || {
        known.read(&extraction, &mut { PAGE }).is_some()
    });
    group.throughput(Throughput::Bytes(LOADS.len() as u64));
    measure(&mut group, "SGLang's loads in its place", || {
        Loads::read(LOADS.as_bytes()).is_some()
    });
}

fn main() {
    let mut criterion = criterion();
    hash(&mut criterion);
    page(&mut criterion);
    for endpoints in POOLS {
        look_up(&mut criterion, endpoints);
        schedule(&mut criterion, endpoints);
        publish(&mut criterion, endpoints);
    }
    criterion.final_summary();
}
