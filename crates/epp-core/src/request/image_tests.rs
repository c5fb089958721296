use super::*;

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | usize::from(*three.get(at).unwrap_or(&0))
        });
        for at in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * at) & 63];
            text.push(if at > three.len() { b'=' } else { letter });
        }
    }
    text
}

fn size(bytes: &[u8], piece: usize) -> Option<(u32, u32)> {
    let mut header = ImageHeader::default();
    base64(bytes)
        .chunks(piece)
        .for_each(|text| header.update(text));
    header.size()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    [
        PNG,
        &width.to_be_bytes(),
        &height.to_be_bytes(),
        b"\x08\x06\0\0\0rest",
    ]
    .concat()
}

fn jpeg(marker: u8, width: u16, height: u16) -> Vec<u8> {
    let frame = [
        &[0xFF, marker, 0, 11, 8][..],
        &height.to_be_bytes(),
        &width.to_be_bytes(),
        &[1; 4],
    ];
    let comment = [0xFF, 0xFE, 1, 4].into_iter().chain([0xC0; 258]);
    let start = [0xFF, 0xD8, 0xFF, 0xE0, 0, 4, b'J', b'F'].into_iter();
    // A marker may be preceded by any number of 0xFF.
    start
        .chain(comment)
        .chain([0xFF, 0xFF])
        .chain(frame.concat())
        .collect()
}

#[test]
fn sizes_are_read_however_the_text_is_split() {
    for piece in [1, 3, 4, 1_000] {
        assert_eq!(size(&png(640, 70_000), piece), Some((640, 70_000)));
        for marker in 0xC0..=0xC2 {
            assert_eq!(size(&jpeg(marker, 640, 480), piece), Some((640, 480)));
        }
        assert_eq!(size(b"GIF89a\x40\x01\xc8\x00\0\0", piece), Some((320, 200)));
        assert_eq!(size(b"GIF87a\x01\x00\x02\x00\0\0", piece), Some((1, 2)));
    }
}

#[test]
fn other_data_has_no_size() {
    for bytes in [
        &b"RIFF\0\0\0\0WEBPVP8 "[..],
        b"GIF90a\x40\x01\xc8\x00\0\0",
        b"",
        b"\x89PNG",
        &png(0, 5),
        // Frames that Go cannot read, an end without a frame, a frame too short.
        &jpeg(0xC3, 640, 480),
        &jpeg(0xDA, 640, 480),
        &[0xFF, 0xD8, 0xFF, 0xC0, 0, 4, 8, 1],
    ] {
        assert_eq!(size(bytes, 5), None, "{}", bytes.escape_ascii());
    }
    let mut header = ImageHeader::default();
    header.update(b"iVBORw0K!!!!");
    header.update(&base64(&png(1, 1)));
    assert_eq!(header.size(), None, "invalid base64 ends the search");
}
