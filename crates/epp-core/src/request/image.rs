//! Reads the width and height of a PNG, JPEG or GIF from its first bytes in base64.

/// The bytes that every PNG begins with, up to its width: signature, then the header chunk's
/// length and name.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// The bytes with which a GIF begins.
const GIF: [&[u8]; 2] = [b"GIF87a", b"GIF89a"];

/// Bytes at the beginning of a PNG or GIF that hold its size.
const HEADER_BYTES: usize = 24;

/// Bytes of a JPEG's frame header that hold its size: precision, height, width.
const FRAME_BYTES: usize = 5;

/// How much of an image was read.
#[derive(Debug, Clone, Copy)]
enum ImageState {
    /// This many bytes of [`HEADER_BYTES`] were read.
    Head(usize),
    /// In a JPEG, where a segment's 0xFF must follow.
    Fill,
    /// In a JPEG, behind 0xFF.
    Marker,
    /// In a JPEG, before a segment's length: marker, and its first byte if that was read.
    Length(u8, Option<u8>),
    /// In a JPEG segment that has no size, this many bytes before its end.
    Segment(usize),
    /// In a JPEG's frame header.
    Frame(usize),
    /// The size was read, or cannot be.
    Over,
}

/// Reads the size of an image.
#[derive(Debug, Clone)]
pub struct ImageHeader {
    state: ImageState,
    head: [u8; HEADER_BYTES],
    /// Bits that do not fill a byte yet.
    bits: u32,
    /// Number of these bits.
    bit_count: u32,
    size: Option<(u32, u32)>,
}

impl Default for ImageHeader {
    fn default() -> Self {
        Self {
            state: ImageState::Head(0),
            head: [0; HEADER_BYTES],
            bits: 0,
            bit_count: 0,
            size: None,
        }
    }
}

impl ImageHeader {
    /// Returns width and height, if they were read and neither is 0.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.size
            .filter(|(width, height)| *width > 0 && *height > 0)
    }

    /// Adds base64 text.
    pub fn update(&mut self, text: &[u8]) {
        for letter in text {
            if matches!(self.state, ImageState::Over) {
                return;
            }
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'\r' | b'\n' => continue,
                _ => {
                    self.state = ImageState::Over;
                    return;
                }
            };
            self.bits = self.bits << 6 | u32::from(value);
            self.bit_count += 6;
            if self.bit_count >= 8 {
                self.bit_count -= 8;
                let byte = self.bits >> self.bit_count;
                self.bits &= (1 << self.bit_count) - 1;
                self.byte(byte as u8);
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        self.state = match self.state {
            ImageState::Head(read) => {
                if let Some(stored) = self.head.get_mut(read) {
                    *stored = byte;
                }
                self.detect_format(read + 1)
            }
            ImageState::Fill if byte == 0xFF => ImageState::Marker,
            ImageState::Fill => ImageState::Fill,
            ImageState::Marker => marker(byte),
            ImageState::Length(marker, None) => ImageState::Length(marker, Some(byte)),
            ImageState::Length(marker, Some(high)) => {
                // The length counts its own two bytes.
                let left = (usize::from(high) << 8 | usize::from(byte)).saturating_sub(2);
                match (marker, left) {
                    (0xC0..=0xC2, FRAME_BYTES..) => ImageState::Frame(0),
                    (0xC0..=0xC2, _) => ImageState::Over,
                    (_, 0) => ImageState::Fill,
                    _ => ImageState::Segment(left),
                }
            }
            ImageState::Segment(1) => ImageState::Fill,
            ImageState::Segment(left) => ImageState::Segment(left - 1),
            ImageState::Frame(read) => {
                if let Some(stored) = self.head.get_mut(read) {
                    *stored = byte;
                }
                if read + 1 < FRAME_BYTES {
                    ImageState::Frame(read + 1)
                } else {
                    let [_, h1, h0, w1, w0, ..] = self.head;
                    self.found(&[w1, w0], &[h1, h0])
                }
            }
            ImageState::Over => ImageState::Over,
        };
    }

    /// Returns the state after the first bytes, which show the format.
    fn detect_format(&mut self, read: usize) -> ImageState {
        let head = self.head;
        let head = head.get(..read).unwrap_or_default();
        if head == [0xFF, 0xD8] {
            return ImageState::Fill;
        }
        if let [b'G', b'I', b'F', _, _, _, w0, w1, h0, h1] = head {
            let known = GIF.iter().any(|name| head.starts_with(name));
            return if known {
                self.found(&[*w1, *w0], &[*h1, *h0])
            } else {
                ImageState::Over
            };
        }
        if let (HEADER_BYTES, Some((PNG, [w3, w2, w1, w0, h3, h2, h1, h0]))) =
            (read, head.split_at_checked(PNG.len()))
        {
            return self.found(&[*w3, *w2, *w1, *w0], &[*h3, *h2, *h1, *h0]);
        }
        if read < HEADER_BYTES {
            ImageState::Head(read)
        } else {
            ImageState::Over
        }
    }

    fn found(&mut self, width: &[u8], height: &[u8]) -> ImageState {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        self.size = Some((number(width), number(height)));
        ImageState::Over
    }
}

/// Returns the state after a JPEG marker.
fn marker(byte: u8) -> ImageState {
    match byte {
        0xFF => ImageState::Marker,
        // A stuffed byte, or a marker without a segment.
        0x00 | 0x01 | 0xD0..=0xD8 => ImageState::Fill,
        // The end, or the picture data: there was no frame header.
        0xD9 | 0xDA => ImageState::Over,
        // Frame types that the Endpoint Picker cannot read.
        0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => ImageState::Over,
        _ => ImageState::Length(byte, None),
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
