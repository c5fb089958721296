//! The values of the request headers that a plan's plugins read.

use std::ops::Range;

use xxhash_rust::xxh64::xxh64;

/// What distinguishes the name of a cookie from that of a header, which has no such sign.
pub const COOKIE: &str = "cookie=";

/// A request header or cookie that some plugin of the plan reads, by its place among all that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderId(pub usize);

/// Bytes kept of a value. Session tokens and tenants' names are shorter; with the 32 headers that a plan may
/// name, a request keeps 16 KiB at most.
const MAX_VALUE_BYTES: usize = 512;

/// The values of one request, in the order of [`Plan::headers`](crate::config::Plan::headers). The buffers
/// are kept from request to request.
#[derive(Debug, Default)]
pub struct HeaderValues {
    bytes: Vec<u8>,
    ranges: Vec<Option<Range<usize>>>,
}

static NO_VALUES: HeaderValues = HeaderValues {
    bytes: Vec::new(),
    ranges: Vec::new(),
};

impl Default for &HeaderValues {
    fn default() -> Self {
        &NO_VALUES
    }
}

impl HeaderValues {
    /// Replaces all values; `None` means that the request does not have the header.
    ///
    /// Of a value longer than 512 bytes the end is replaced by its hash. One of them equals no value that is kept
    /// as it came, and two that differ still differ unless a client made them collide, which has no use: it can
    /// send equal values as well. The hash has no key, so that all proxies agree on it.
    pub fn set<'v>(&mut self, values: impl IntoIterator<Item = Option<&'v [u8]>>) {
        self.bytes.clear();
        self.ranges.clear();
        for value in values {
            let range = value.map(|value| self.push(value));
            self.ranges.push(range);
        }
    }

    fn push(&mut self, value: &[u8]) -> Range<usize> {
        let (kept, rest) = value
            .split_at_checked(MAX_VALUE_BYTES)
            .unwrap_or((value, &[]));
        let mut range = self.append(kept);
        if !rest.is_empty() {
            range.end = self.append(&xxh64(rest, 0).to_le_bytes()).end;
        }
        range
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Returns the value of a header, if the request has it.
    pub fn get(&self, HeaderId(place): HeaderId) -> Option<&[u8]> {
        self.bytes.get(self.ranges.get(place)?.clone()?)
    }

    /// Returns the first value of these headers that is not blank, without the spaces around it.
    pub fn first(&self, headers: &[HeaderId]) -> Option<&[u8]> {
        let values = headers.iter().filter_map(|header| self.get(*header));
        values
            .map(<[u8]>::trim_ascii)
            .find(|value| !value.is_empty())
    }

    /// Brings the values of headers in the order `before` into the order `now`. A header that was not read
    /// before counts as absent.
    pub fn reorder(&mut self, before: &[String], now: &[String]) {
        let mut ordered = Self::default();
        for name in now {
            let place = before.iter().position(|known| known == name);
            let value = place.and_then(|place| self.get(HeaderId(place)));
            // As it is kept: the hash of a long value is not hashed once more.
            let range = value.map(|value| ordered.append(value));
            ordered.ranges.push(range);
        }
        *self = ordered;
    }

    /// Returns the bytes of memory that they have allocated.
    pub fn allocated(&self) -> usize {
        self.bytes.capacity() + self.ranges.capacity() * size_of::<Option<Range<usize>>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(value: &[u8]) -> Vec<u8> {
        let mut values = HeaderValues::default();
        values.set([None, Some(value)]);
        assert_eq!(values.get(HeaderId(0)), None);
        assert_eq!(values.get(HeaderId(2)), None);
        values.get(HeaderId(1)).unwrap().to_vec()
    }

    #[test]
    fn long_values_are_bounded_and_still_differ() {
        let fits = vec![b'a'; MAX_VALUE_BYTES];
        assert_eq!(kept(b""), b"");
        assert_eq!(kept(&fits), fits);
        let mut long = vec![b'a'; 100_000];
        let one = kept(&long);
        assert_eq!(one.len(), MAX_VALUE_BYTES + 8);
        *long.last_mut().unwrap() = b'b';
        assert_ne!(kept(&long), one);
        assert_ne!(kept(&fits), one);
    }

    #[test]
    fn values_of_one_request_replace_those_of_the_one_before() {
        let mut values = HeaderValues::default();
        values.set([Some(&b"one"[..]), Some(b"two")]);
        let allocated = values.allocated();
        values.set([Some(&b"a"[..]), None]);
        assert_eq!(values.get(HeaderId(0)), Some(&b"a"[..]));
        assert_eq!(values.get(HeaderId(1)), None);
        assert_eq!(values.allocated(), allocated, "the buffers are reused");
        values.set([]);
        assert_eq!(values.get(HeaderId(0)), None);
    }

    #[test]
    fn values_follow_their_names_into_another_order() {
        let names = |names: &str| names.split(' ').map(str::to_owned).collect::<Vec<String>>();
        let mut values = HeaderValues::default();
        values.set([Some(&b"1"[..]), Some(b"2"), None]);
        values.reorder(&names("a b c"), &names("c new b"));
        let all = [0, 1, 2].map(|place| values.get(HeaderId(place)));
        assert_eq!(all, [None, None, Some(&b"2"[..])]);
        let long = vec![b'a'; 2 * MAX_VALUE_BYTES];
        values.set([None, Some(&long[..])]);
        values.reorder(&names("a b"), &names("b a"));
        assert_eq!(values.get(HeaderId(0)), Some(&kept(&long)[..]));
    }
}
