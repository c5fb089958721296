//! Metrics pages of several series, made up: the fuzzer would take long to find the labels that matter.

/// A page of small families, nearly all lines sound, with labels that tell parts, ranks and meanings apart.
fn page(rng: &mut fastrand::Rng) -> String {
    let families = [
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "sglang:num_queue_reqs",
    ];
    let labels = [
        "engine",
        "dp_rank",
        "pid",
        "tp_rank",
        "priority",
        "model_name",
        "a",
    ];
    let values = [
        "0", "1", "2", "7.5", "1.01", "0.25", "NaN", "-1", "+Inf", "1e3",
    ];
    let mut page = String::new();
    for family in families {
        if rng.bool() {
            page += &format!("# TYPE {family} gauge\n");
        }
        let used: Vec<&str> = labels.into_iter().filter(|_| rng.u8(..3) == 0).collect();
        for _ in 0..rng.usize(..8) {
            let mut pairs: Vec<String> = Vec::new();
            for name in &used {
                let value = rng.choice(["", "0", "1", "2"]).unwrap_or_default();
                pairs.push(format!("{name}=\"{value}\""));
            }
            rng.shuffle(&mut pairs);
            let list = match pairs.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", pairs.join(",")),
            };
            let value = rng.choice(values).unwrap_or_default();
            page += &format!("{family}{list} {value}\n");
        }
    }
    page
}

#[test]
fn pages_of_several_series_are_read_as_a_plain_parser_reads_them() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let page = page(&mut rng);
        let held = std::panic::catch_unwind(|| properties::page(page.as_bytes()));
        assert!(held.is_ok(), "seed {seed}:\n{page}");
    }
}
