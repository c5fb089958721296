//! Width and height of a PNG, JPEG or GIF, from its first bytes in base64.

/// The bytes that every PNG begins with, up to its width: signature, then the header chunk's
/// length and name.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// What a GIF begins with.
const GIF: [&[u8]; 2] = [b"GIF87a", b"GIF89a"];

/// Bytes at the beginning of a PNG or GIF that hold its size.
const HEAD: usize = 24;

/// Bytes of a JPEG's frame header that hold its size: precision, height, width.
const FRAME: usize = 5;

/// Where in an image.
#[derive(Debug, Clone, Copy)]
enum ImageNode {
    /// This many bytes of [`HEAD`] were read.
    Head(usize),
    /// In a JPEG, where a segment's 0xFF must follow.
    Fill,
    /// In a JPEG, behind 0xFF.
    Marker,
    /// In a JPEG, before a segment's length: marker, and its first byte if that was read.
    Length(u8, Option<u8>),
    /// In a JPEG's segment without a size, this many bytes before its end.
    Segment(usize),
    /// In a JPEG's frame header.
    Frame(usize),
    /// Nothing more to learn.
    Over,
}

/// Reads an image's size.
#[derive(Debug, Clone)]
pub struct ImageHeader {
    place: ImageNode,
    head: [u8; HEAD],
    /// Bits that did not fill a byte, and how many.
    bits: u32,
    bit_count: u32,
    size: Option<(u32, u32)>,
}

impl Default for ImageHeader {
    fn default() -> Self {
        Self {
            place: ImageNode::Head(0),
            head: [0; HEAD],
            bits: 0,
            bit_count: 0,
            size: None,
        }
    }
}

impl ImageHeader {
    /// Width and height, once they were read and neither is nothing.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.size
            .filter(|(width, height)| *width > 0 && *height > 0)
    }

    /// More base64.
    pub fn update(&mut self, text: &[u8]) {
        for letter in text {
            if matches!(self.place, ImageNode::Over) {
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
                    self.place = ImageNode::Over;
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
        self.place = match self.place {
            ImageNode::Head(read) => {
                if let Some(place) = self.head.get_mut(read) {
                    *place = byte;
                }
                self.judge(read + 1)
            }
            ImageNode::Fill if byte == 0xFF => ImageNode::Marker,
            ImageNode::Fill => ImageNode::Fill,
            ImageNode::Marker => marker(byte),
            ImageNode::Length(marker, None) => ImageNode::Length(marker, Some(byte)),
            ImageNode::Length(marker, Some(high)) => {
                // The length counts its own two bytes.
                let left = (usize::from(high) << 8 | usize::from(byte)).saturating_sub(2);
                match (marker, left) {
                    (0xC0..=0xC2, FRAME..) => ImageNode::Frame(0),
                    (0xC0..=0xC2, _) => ImageNode::Over,
                    (_, 0) => ImageNode::Fill,
                    _ => ImageNode::Segment(left),
                }
            }
            ImageNode::Segment(1) => ImageNode::Fill,
            ImageNode::Segment(left) => ImageNode::Segment(left - 1),
            ImageNode::Frame(read) => {
                if let Some(place) = self.head.get_mut(read) {
                    *place = byte;
                }
                if read + 1 < FRAME {
                    ImageNode::Frame(read + 1)
                } else {
                    let [_, h1, h0, w1, w0, ..] = self.head;
                    self.found(&[w1, w0], &[h1, h0])
                }
            }
            ImageNode::Over => ImageNode::Over,
        };
    }

    /// What the first bytes are the beginning of.
    fn judge(&mut self, read: usize) -> ImageNode {
        let head = self.head;
        let head = head.get(..read).unwrap_or_default();
        if head == [0xFF, 0xD8] {
            return ImageNode::Fill;
        }
        if let [b'G', b'I', b'F', _, _, _, w0, w1, h0, h1] = head {
            let known = GIF.iter().any(|name| head.starts_with(name));
            return if known {
                self.found(&[*w1, *w0], &[*h1, *h0])
            } else {
                ImageNode::Over
            };
        }
        if let (HEAD, Some((PNG, [w3, w2, w1, w0, h3, h2, h1, h0]))) =
            (read, head.split_at_checked(PNG.len()))
        {
            return self.found(&[*w3, *w2, *w1, *w0], &[*h3, *h2, *h1, *h0]);
        }
        if read < HEAD {
            ImageNode::Head(read)
        } else {
            ImageNode::Over
        }
    }

    fn found(&mut self, width: &[u8], height: &[u8]) -> ImageNode {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        self.size = Some((number(width), number(height)));
        ImageNode::Over
    }
}

/// What follows a JPEG's marker.
fn marker(byte: u8) -> ImageNode {
    match byte {
        0xFF => ImageNode::Marker,
        // No marker but a stuffed byte; markers without a segment.
        0x00 | 0x01 | 0xD0..=0xD8 => ImageNode::Fill,
        // The end, or the picture itself: the frame header did not come.
        0xD9 | 0xDA => ImageNode::Over,
        // Frames of kinds that the Endpoint Picker cannot read.
        0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => ImageNode::Over,
        _ => ImageNode::Length(byte, None),
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
