use super::*;

fn headers(values: &[Option<&str>]) -> HeaderValues {
    let mut headers = HeaderValues::default();
    headers.set(values.iter().map(|value| value.map(str::as_bytes)));
    headers
}

/// Two headers for the fairness id, an agent's, one for the time to the first token, one for the time to live.
fn admission() -> Admission {
    Admission {
        headers: AdmissionHeaders {
            fairness_id: vec![HeaderId(0), HeaderId(1), HeaderId(2)],
            slo_ttft: vec![HeaderId(3)],
            ttl: vec![HeaderId(4)],
            ..AdmissionHeaders::default()
        },
        ..Admission::default()
    }
}

#[test]
fn the_first_header_with_a_value_names_the_flow() {
    for (values, expected) in [
        ([Some("new"), Some("old"), Some("agent")], "new"),
        ([Some(" "), Some("old"), Some("agent")], "old"),
        ([None, Some(""), Some(" agent ")], "agent"),
        ([None, None, None], "default-flow"),
    ] {
        let headers = headers(&values);
        assert_eq!(admission().read(&headers).fairness_id, expected);
    }
}

#[test]
fn only_the_text_of_a_fairness_id_counts() {
    let mut headers = HeaderValues::default();
    for (value, expected) in [
        (&b"caf\xc3\xa9"[..], "café"),
        (b"tenant\xff1", "tenant"),
        (b"\xff", "default-flow"),
    ] {
        headers.set([Some(value)]);
        assert_eq!(admission().read(&headers).fairness_id, expected);
    }
    // The end of a long value is kept as a hash, which is not text.
    headers.set([Some(&[b'a'; 10_000][..])]);
    assert!(admission().read(&headers).fairness_id.len() >= 512);
}

#[test]
fn times_that_cannot_be_read_are_as_good_as_none() {
    let with = |slo: &str, ttl: &str| {
        let headers = headers(&[None, None, None, Some(slo), Some(ttl)]);
        let standing = admission().read(&headers);
        (standing.slo_ttft, standing.ttl)
    };
    let millis = Duration::from_millis;
    assert_eq!(
        with("250", "1.5s"),
        (Some(millis(250)), Some(millis(1_500)))
    );
    assert_eq!(
        with(" 0 ", "1m30s"),
        (Some(millis(0)), Some(millis(90_000)))
    );
    for (slo, ttl) in [
        ("-1", "-1s"),
        ("1.5", "5"),
        ("soon", "soon"),
        ("", ""),
        ("99999999999999999999", "0s"),
        ("1e3", "1e3s"),
    ] {
        assert_eq!(with(slo, ttl), (None, None), "{slo}, {ttl}");
    }
    let (slo, ttl) = with("18446744073709551615", "99999999999999999999999h");
    assert!(slo > Some(millis(u64::MAX - 1)) && ttl > Some(millis(u64::MAX - 1)));
}
