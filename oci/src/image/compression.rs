//! gzip and zstd, told apart by their first bytes.
//!
//! Media types are often wrong about compression, so the bytes decide. That is safe because what comes out is
//! compared with the digest that the image's configuration gives for the uncompressed layer.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// How much memory a zstd stream may ask for: 2^27 bytes, what the command line tool allows.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Large enough that reads of the input cost nothing next to decompressing it.
const BUFFER: usize = 128 << 10;

/// What a stream is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// gzip, one or more members.
    Gzip,
    /// Zstandard, with skippable frames.
    Zstd,
}

impl Compression {
    /// By the first bytes of a stream.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame first, as zstd:chunked and pzstd write.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// Compressions that are not read, by the first bytes of a stream: better named than called damaged.
    pub fn unsupported(start: &[u8]) -> Option<io::Error> {
        let name = match start {
            [0xfd, b'7', b'z', b'X', ..] => "xz",
            [b'B', b'Z', b'h', ..] => "bzip2",
            [0x04, 0x22, 0x4d, 0x18, ..] => "lz4",
            [b'P', b'K', 0x03, 0x04, ..] => "zip",
            _ => return None,
        };
        let message =
            format!("it is compressed with {name}, which is not supported; use gzip, zstd or nothing");
        Some(io::Error::new(io::ErrorKind::Unsupported, message))
    }

    /// As in the suffix of a media type.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "tar",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// The compressed stream: the bytes that were looked at, and the rest.
type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A stream as it was before compression.
pub enum Decompressor<R: Read> {
    /// It was not compressed.
    None(Input<R>),
    /// Through gzip.
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    /// Through zstd.
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
}

impl<R: Read> std::fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decompressor").field(&self.compression()).finish()
    }
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes.
    pub fn new(mut input: R) -> io::Result<Decompressor<R>> {
        // A pipe may give fewer bytes than asked for at first.
        let mut start = Vec::with_capacity(4);
        input.by_ref().take(4).read_to_end(&mut start)?;
        if let Some(error) = Compression::unsupported(&start) {
            return Err(error);
        }
        let compression = Compression::detect(&start);
        let input = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(input));
        Ok(match compression {
            Compression::None => Decompressor::None(input),
            Compression::Gzip => Decompressor::Gzip(Box::new(MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Decompressor::Zstd(Box::new(decoder))
            }
        })
    }

    /// What it found.
    pub fn compression(&self) -> Compression {
        match self {
            Decompressor::None(_) => Compression::None,
            Decompressor::Gzip(_) => Compression::Gzip,
            Decompressor::Zstd(_) => Compression::Zstd,
        }
    }

    /// The compressed stream; what was read ahead of it is lost.
    pub fn into_inner(self) -> R {
        match self {
            Decompressor::None(input) => input.into_inner().into_inner().1,
            Decompressor::Gzip(decoder) => decoder.into_inner().into_inner().into_inner().1,
            Decompressor::Zstd(decoder) => decoder.finish().into_inner().into_inner().1,
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressor::None(input) => input.read(buf),
            Decompressor::Gzip(decoder) => decoder.read(buf),
            Decompressor::Zstd(decoder) => decoder.read(buf),
        }
    }
}
