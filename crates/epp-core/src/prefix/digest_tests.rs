use super::*;
use crate::prefix::key::Secret;
use xxhash_rust::xxh64::xxh64;

/// Returns the Endpoint Picker's digests of a prompt.
fn digests(prompt: &[u8], spec: &BlockSpec) -> Vec<u64> {
    keyed(prompt, spec, &Key::Plain)
}

fn keyed(prompt: &[u8], spec: &BlockSpec, key: &Key) -> Vec<u64> {
    let mut hasher = BlockHasher::default();
    hasher.reset(*spec, key);
    hasher.update(prompt);
    hasher.end_prompt();
    let prompts = hasher.prompts_from(0).map(<[u64]>::to_vec);
    prompts.collect::<Vec<_>>().concat()
}

fn tokens(tokens: impl IntoIterator<Item = u32>) -> Vec<u8> {
    tokens.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Returns the hashes of the llm-d dialect for this many tokens per block.
fn llm_d(model: &str, salt: &str, block_tokens: usize, prompt: &[u8]) -> Vec<u64> {
    let spec = BlockSpec {
        block_bytes: block_tokens * TOKEN,
        max_blocks: None,
        keep_partial: true,
    };
    let mut last = Key::Plain.seed(model, salt);
    let digests = digests(prompt, &spec);
    let chained = digests.into_iter().map(|digest| {
        last = chain(last, digest);
        last
    });
    chained.collect()
}

// The length is that of the table.
#[allow(clippy::too_many_lines)]
#[test]
fn the_reference_vectors_of_llm_d_hold_to_the_bit() {
    assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
    assert_eq!(xxh64(b"test-model1", 0), 0x55b9_ce91_84dd_8509);
    for (model, salt, block, prompt, expected) in [
        (
            "test-model1",
            "",
            1,
            vec![1, 2],
            vec![0x9b14_876e_2748_6c74, 0xb5ac_6edc_98e7_46e9],
        ),
        (
            "test-model1",
            "",
            1,
            vec![1, 3],
            vec![0x9b14_876e_2748_6c74, 0x1d43_cb3f_f67d_c42c],
        ),
        (
            "test-model1",
            "",
            2,
            (1..=6).collect(),
            vec![
                0xba72_55a7_fbf3_34bf,
                0x9dd2_5728_30bb_7c97,
                0x4f93_fa3a_5ad8_b622,
            ],
        ),
        (
            "",
            "",
            4,
            (1..=10).collect(),
            vec![
                0x23e9_3cf3_263c_5519,
                0x3d65_cd20_e965_730f,
                0xe1f9_7cb8_473f_e9aa,
            ],
        ),
        (
            "m",
            "",
            2,
            (1..=4).collect(),
            vec![0xbdea_da20_7194_3583, 0x7aac_fb53_1261_b051],
        ),
        (
            "m",
            "salt",
            2,
            (1..=4).collect(),
            vec![0x6b0e_68c5_4f9c_eac3, 0xf143_3d4f_f41f_4429],
        ),
    ] {
        assert_eq!(
            llm_d(model, salt, block, &tokens(prompt)),
            expected,
            "{model} {salt}"
        );
    }
    let packed: Vec<u32> = vec![1_819_043_176, 1_870_078_063, 6_581_362];
    let text = b"hello world";
    assert_eq!(llm_d("m", "", 64, text), [0xf661_5699_d17c_b474]);
    assert_eq!(
        llm_d("m", "", 64, &tokens(packed)),
        llm_d("m", "", 64, text)
    );
}

#[test]
fn the_number_of_blocks_is_the_references() {
    let count = |prompt: Vec<u32>, block| llm_d("m", "", block, &tokens(prompt)).len();
    assert_eq!(count((1..=8).collect(), 4), 2);
    assert_eq!(count((1..=10).collect(), 4), 3);
    assert_eq!(count(vec![], 4), 0);
    assert_eq!(count((1..=8).collect(), 0), 0);
}

/// Returns GIE v1's chain, without the bug of its slices (reference, 4.1).
fn gie_v1(model: &str, block_bytes: usize, prompt: &[u8]) -> Vec<u64> {
    let mut hashes: Vec<u64> = Vec::new();
    for block in prompt.chunks_exact(block_bytes) {
        let bytes = match hashes.last() {
            None => [model.as_bytes(), block].concat(),
            Some(last) => [block, &last.to_le_bytes()].concat(),
        };
        hashes.push(xxh64(&bytes, 0));
    }
    hashes
}

fn ours(model: &str, block_bytes: usize, prompt: &[u8]) -> Vec<u64> {
    let spec = BlockSpec {
        block_bytes,
        max_blocks: None,
        keep_partial: false,
    };
    let mut last = Key::Plain.seed(model, "");
    let chained = digests(prompt, &spec).into_iter().map(|digest| {
        last = chain(last, digest);
        last
    });
    chained.collect()
}

#[test]
fn our_chain_is_equal_exactly_where_the_chain_of_gie_v1_is() {
    let cycle: Vec<u8> = (b'a'..=b'z').cycle().take(200).collect();
    let prompts: [(&str, usize, &[u8]); 6] = [
        ("test-model1", 4, b"aaaaaa"),
        ("test-model1", 4, b"aaaabbbb"),
        ("test-model1", 4, b"aaaabbbbcccc"),
        ("test-model2", 4, b"aaaabbbb"),
        ("test-model1", 4, b"bbbbaaaa"),
        ("m", 64, &cycle),
    ];
    let expected: [&[u64]; 3] = [
        &[0xdd0e_daac_51f7_3332],
        &[0xdd0e_daac_51f7_3332, 0x6aa2_2d03_04dd_0312],
        &[
            0xdd0e_daac_51f7_3332,
            0x6aa2_2d03_04dd_0312,
            0x80e5_8c6c_9350_3478,
        ],
    ];
    for ((model, block, prompt), expected) in prompts.iter().zip(expected) {
        assert_eq!(gie_v1(model, *block, prompt), expected);
    }
    assert_eq!(
        gie_v1("m", 64, &cycle),
        [
            0x47eb_3fc3_2a3b_4ad9,
            0x987e_10b9_3b0a_43a5,
            0xd286_9eb2_6ec9_839d
        ]
    );
    let all = |hashes: fn(&str, usize, &[u8]) -> Vec<u64>| -> Vec<u64> {
        let each = prompts.iter();
        each.flat_map(|(model, block, prompt)| hashes(model, *block, prompt))
            .collect()
    };
    let (theirs, own) = (all(gie_v1), all(ours));
    assert_eq!(theirs.len(), own.len());
    for (i, j) in (0..own.len()).flat_map(|i| (0..i).map(move |j| (i, j))) {
        assert_eq!(own[i] == own[j], theirs[i] == theirs[j], "{i} {j}");
    }
}

#[test]
fn blocks_beyond_the_window_do_not_count() {
    let spec = BlockSpec {
        block_bytes: 2,
        max_blocks: Some(3),
        keep_partial: true,
    };
    assert_eq!(digests(b"aabbccddee", &spec).len(), 3);
}

#[test]
fn the_size_of_pieces_does_not_matter() {
    let prompt: Vec<u8> = (0..=255).cycle().take(3_000).collect();
    let specs = [
        (1, false),
        (4, true),
        (7, false),
        (64, true),
        (240, true),
        (256, true),
        (2_000, true),
    ];
    for key in [Key::Plain, Key::Secret(Secret::from(1))] {
        for (block_bytes, keep_partial) in specs {
            let spec = BlockSpec {
                block_bytes,
                max_blocks: None,
                keep_partial,
            };
            let whole = keyed(&prompt, &spec, &key);
            for piece in [1, 3, 63, 64, 65, 999] {
                let mut hasher = BlockHasher::default();
                hasher.reset(spec, &key);
                prompt.chunks(piece).for_each(|piece| hasher.update(piece));
                hasher.end_prompt();
                let pieced: Vec<u64> = hasher.prompts_from(0).flatten().copied().collect();
                assert_eq!(pieced, whole, "{key:?} {block_bytes} {piece}");
            }
        }
    }
}

#[test]
fn the_window_is_one_for_all_prompts_of_a_request() {
    let mut hasher = BlockHasher::default();
    let spec = BlockSpec {
        block_bytes: 2,
        max_blocks: Some(3),
        keep_partial: true,
    };
    hasher.reset(spec, &Key::Plain);
    assert_eq!(hasher.room(), 6);
    hasher.update(b"aab");
    assert_eq!(hasher.room(), 3);
    hasher.end_prompt();
    hasher.end_prompt();
    assert!(!hasher.is_full());
    assert_eq!(
        hasher.room(),
        2,
        "a block that is filled up is one all the same"
    );
    hasher.update(b"aabb");
    assert!(hasher.is_full());
    hasher.end_prompt();
    hasher.update(b"aabb");
    hasher.end_prompt();
    assert!(hasher.is_full());
    assert_eq!(hasher.room(), 0);
    let prompts: Vec<&[u64]> = hasher.prompts_from(0).collect();
    assert_eq!(
        prompts
            .iter()
            .map(|prompt| prompt.len())
            .collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(prompts[0][0], prompts[1][0]);
    for first in 0..=3 {
        let rest: Vec<&[u64]> = hasher.prompts_from(first).collect();
        assert_eq!(rest, prompts[first.min(2)..], "from {first}");
    }
    hasher.restart();
    assert_eq!((hasher.prompts_from(0).count(), hasher.room()), (0, 6));
}

#[test]
fn a_flood_of_prompts_does_not_grow_without_bound() {
    for (max_blocks, expected) in [
        (None, DEFAULT_MAX_DIGESTS),
        (Some(usize::MAX), MAX_DIGESTS),
        (Some(2_048), 2_048),
        (Some(0), 0),
    ] {
        let mut hasher = BlockHasher::default();
        let spec = BlockSpec {
            block_bytes: 4,
            max_blocks,
            keep_partial: true,
        };
        hasher.reset(spec, &Key::Plain);
        for _ in 0..MAX_DIGESTS + 1_000 {
            hasher.update(b"a");
            hasher.end_prompt();
        }
        assert_eq!(hasher.prompts_from(0).count(), expected);
    }
}

#[test]
fn a_chain_is_the_library_s_hash_of_both_numbers() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut numbers: Vec<u64> = (0..1_000).map(|_| rng.u64(..)).collect();
    numbers.extend([0, 1, u64::MAX, 1 << 63]);
    for pair in numbers.windows(2) {
        let bytes: Vec<u8> = pair
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        assert_eq!(chain(pair[1], pair[0]), xxh64(&bytes, 0), "{pair:x?}");
    }
}
