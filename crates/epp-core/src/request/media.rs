//! Represents an image, a video or a sound in a prompt by the hash of its URL or data, repeated for as many tokens as it
//! probably takes.
//!
//! Of a picture inside the body only the header is examined, for its width and height; the rest is hashed as it
//! streams past.
//!
//! The hash has no key. Only 32 bits of it stand in the prompt, as in the Endpoint Picker; a client that can see where
//! requests go finds collisions of so few bits by trial, with or without a key. It then makes the filter expect an image
//! in a cache that holds another one, which loses the match of that request.

use xxhash_rust::xxh64::Xxh64;

use super::image::ImageHeader;
use super::prompt::Media;
use crate::prefix::digest::TOKEN;

/// Pixels of an image or frame per token.
const PIXELS_PER_TOKEN: u64 = 1024;

/// Assumed size of an image whose size is unknown.
const DEFAULT_SIZE: (u32, u32) = (640, 360);

/// Assumed frames of a video: ten seconds with two frames each.
const VIDEO_FRAMES: usize = 20;

/// The beginning of the data URI of an image.
const DATA_IMAGE: &[u8] = b"data:image/";

/// The end of the head of a data URI.
const BASE64: &[u8] = b"base64,";

/// How much of a URL was read.
#[derive(Debug, Clone, Copy, Default)]
enum UrlState {
    /// This many bytes of [`DATA_IMAGE`], and nothing else.
    Scheme(usize),
    /// Part of the head of an image's data URI, which ends with this many bytes of [`BASE64`].
    Head(usize),
    /// The head and a part of the image.
    Image,
    /// Something without a known size.
    #[default]
    Other,
}

/// Hashes one image, video or sound as its text streams past.
#[derive(Clone, Default)]
pub struct MediaSum {
    hash: Xxh64,
    length: usize,
    text: UrlState,
    image: ImageHeader,
}

impl MediaSum {
    /// Begins with the text of a URL.
    pub fn url() -> Self {
        Self {
            text: UrlState::Scheme(0),
            ..Self::default()
        }
    }

    /// Begins with the bytes of an image in base64.
    pub fn base64() -> Self {
        Self {
            text: UrlState::Image,
            ..Self::default()
        }
    }

    /// Returns whether there was no text.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the hash of the text so far.
    pub fn digest(&self) -> u64 {
        self.hash.digest()
    }

    /// Adds text.
    pub fn update(&mut self, text: &[u8]) {
        self.hash.update(text);
        self.length += text.len();
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            self.text = match self.text {
                UrlState::Other => return,
                UrlState::Image => {
                    self.image.update(rest);
                    return;
                }
                UrlState::Scheme(read) if DATA_IMAGE.get(read) != Some(&byte) => UrlState::Other,
                UrlState::Scheme(read) if read + 1 == DATA_IMAGE.len() => UrlState::Head(0),
                UrlState::Scheme(read) => UrlState::Scheme(read + 1),
                UrlState::Head(read) if BASE64.get(read) != Some(&byte) => {
                    UrlState::Head(usize::from(byte == b'b'))
                }
                UrlState::Head(read) if read + 1 == BASE64.len() => UrlState::Image,
                UrlState::Head(read) => UrlState::Head(read + 1),
            };
            rest = after;
        }
    }

    /// Returns the tokens of an image.
    pub fn as_image(&self) -> Media {
        let (width, height) = self.image.size().unwrap_or(DEFAULT_SIZE);
        let tokens = u64::from(width) * u64::from(height) / PIXELS_PER_TOKEN;
        self.media(usize::try_from(tokens).unwrap_or(usize::MAX))
    }

    /// Returns the tokens of a video.
    pub fn as_video(&self) -> Media {
        let (width, height) = DEFAULT_SIZE;
        let frame = u64::from(width) * u64::from(height) / PIXELS_PER_TOKEN;
        self.media(VIDEO_FRAMES * usize::try_from(frame).unwrap_or(usize::MAX))
    }

    /// Returns the tokens of a sound.
    pub fn as_audio(&self) -> Media {
        self.media(self.length.div_ceil(TOKEN))
    }

    /// Returns this many tokens, but at least one. The token is the low half of the hash.
    fn media(&self, count: usize) -> Media {
        Media {
            token: self.hash.digest() as u32,
            count: count.max(1),
        }
    }
}

impl std::fmt::Debug for MediaSum {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { length, text, .. } = self;
        write!(formatter, "MediaSum({length} bytes, {text:?})")
    }
}
