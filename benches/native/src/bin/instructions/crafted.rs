//! Short texts, random ones and such as collide where hashes are not keyed.
//!
//! The hash of a prompt of eight bytes is XXH64 of XXH64 of its text and of the hash of the model. With the
//! text and with the number of a bucket alike 64 bits go in and 64 bits come out, so that a client need
//! not search: it computes which text has a hash.

/// The factors of XXH64.
const PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

/// So many random texts.
pub fn random(count: usize) -> Vec<[u8; 8]> {
    // A number mixed as XXH64 ends is as random as is needed here.
    let texts = (1..).map(|number| end(number).to_le_bytes());
    texts.filter(is_plain).take(count).collect()
}

/// So many texts whose hashes behind the model `bench` all end in 16 zero bits.
pub fn colliding(count: usize) -> Vec<[u8; 8]> {
    let model = hash_of_five(*b"bench");
    let texts = (1..).map(|number| text_of(digest_of(number << 16, model)));
    texts.filter(is_plain).take(count).collect()
}

/// Whether a text can stand in a JSON string as it is.
fn is_plain(text: &[u8; 8]) -> bool {
    let mut bytes = text.iter();
    bytes.all(|byte| *byte >= b' ' && *byte != b'"' && *byte != b'\\')
}

/// XXH64 of five bytes.
fn hash_of_five(text: [u8; 5]) -> u64 {
    let [p1, p2, p3, _, p5] = PRIMES;
    let [four @ .., last] = text;
    let four = u64::from(u32::from_le_bytes(four));
    let hash = p5.wrapping_add(5) ^ four.wrapping_mul(p1);
    let hash = hash.rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
    let hash = hash ^ u64::from(last).wrapping_mul(p5);
    end(hash.rotate_left(11).wrapping_mul(p1))
}

/// How XXH64 ends.
fn end(hash: u64) -> u64 {
    let [_, p2, p3, ..] = PRIMES;
    let hash = (hash ^ hash >> 33).wrapping_mul(p2);
    let hash = (hash ^ hash >> 29).wrapping_mul(p3);
    hash ^ hash >> 32
}

/// What ends as this does.
fn before_end(hash: u64) -> u64 {
    let [_, p2, p3, ..] = PRIMES;
    let hash = (hash ^ hash >> 32).wrapping_mul(inverse(p3));
    let hash = (hash ^ hash >> 29 ^ hash >> 58).wrapping_mul(inverse(p2));
    hash ^ hash >> 33
}

/// The number with which an odd one multiplies to 1.
fn inverse(odd: u64) -> u64 {
    // Each round doubles the bits that are right.
    (0..6).fold(odd, |found, _| {
        found.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(found)))
    })
}

/// What eight bytes are made to before they are taken in.
fn round(bytes: u64) -> u64 {
    let [p1, p2, ..] = PRIMES;
    bytes.wrapping_mul(p2).rotate_left(31).wrapping_mul(p1)
}

/// The bytes that are made to this.
fn before_round(made: u64) -> u64 {
    let [p1, p2, ..] = PRIMES;
    let turned = made.wrapping_mul(inverse(p1)).rotate_right(31);
    turned.wrapping_mul(inverse(p2))
}

/// The hash before eight bytes, which were made to `made`, were taken in.
fn before_bytes(hash: u64, made: u64) -> u64 {
    let [p1, _, _, p4, _] = PRIMES;
    let turned = hash.wrapping_sub(p4).wrapping_mul(inverse(p1));
    turned.rotate_right(27) ^ made
}

/// The first eight of 16 bytes that have this hash, of which the others are known.
fn digest_of(hash: u64, last: u64) -> u64 {
    let [.., p5] = PRIMES;
    let hash = before_bytes(before_end(hash), round(last));
    before_round(before_bytes(hash, p5.wrapping_add(16)))
}

/// The eight bytes that have this hash.
fn text_of(hash: u64) -> [u8; 8] {
    let [.., p5] = PRIMES;
    before_round(before_bytes(before_end(hash), p5.wrapping_add(8))).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::prefix::digest::chain;
    use epp_core::prefix::key::Key;

    #[test]
    fn crafted_texts_collide_where_hashes_are_not_keyed() {
        let texts = colliding(1_000);
        for text in &texts {
            let hash = chain(Key::Plain.seed("bench", ""), Key::Plain.digest(text));
            assert_eq!(hash % (1 << 16), 0);
        }
        let distinct: std::collections::HashSet<_> = texts.iter().collect();
        assert_eq!(distinct.len(), 1_000);
    }
}
