//! A trace of requests that anybody can make again: which URL is asked for, and how large its answer is.
//!
//! URLs are asked for by Zipf's law, the `n`-th most wanted one `n^exponent` times as seldom as the first. Sizes are spread
//! log-normally around a median of 8 KiB, with a sigma of 1.2, between 200 bytes and 1 MiB, and have nothing to do with
//! how wanted a URL is. `strangers` of a thousand requests are for URLs that nobody asks for twice.

/// Smallest and largest answer.
const SIZES: (f64, f64) = (200.0, (1 << 20) as f64);
const MEDIAN: f64 = 8192.0;
const SIGMA: f64 = 1.2;

/// What a trace is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// URLs that are asked for more than once.
    pub(crate) urls: usize,
    /// Zipf's exponent.
    pub(crate) exponent: f64,
    /// How many of a thousand requests are for URLs of their own.
    pub(crate) strangers: u32,
    /// What the random numbers begin with.
    pub(crate) seed: u64,
}

/// A trace of a stated length, and the room that a cache has for its answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stated {
    /// What it is called.
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) requests: usize,
    /// Bytes.
    pub(crate) capacity: u64,
}

/// 10,000 URLs of some 160 MiB together, asked for by Zipf's law with an exponent of 1.2, and room for half of them.
pub(crate) const HALF: Stated = Stated {
    name: "room for half",
    shape: Shape { urls: 10_000, exponent: 1.2, strangers: 0, seed: 1 },
    requests: 800_000,
    capacity: 80 << 20,
};

/// Little room, and a fifth of the requests for what nobody asks for again: such a crawler flushes what is merely recent.
pub(crate) const CRAWLED: Stated = Stated {
    name: "with a crawler",
    shape: Shape { urls: 10_000, exponent: 1.0, strangers: 200, seed: 2 },
    requests: 200_000,
    capacity: 32 << 20,
};

/// The requests, without an end.
pub(crate) struct Trace {
    shape: Shape,
    /// For each URL the probability that it or a more wanted one is asked for.
    cumulative: Vec<f64>,
    sizes: Vec<usize>,
    random: fastrand::Rng,
    stranger: usize,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// The URL's number.
    pub(crate) url: usize,
    /// Bytes of its answer.
    pub(crate) size: usize,
}

impl Trace {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut random = fastrand::Rng::with_seed(shape.seed);
        let weights = (1..=shape.urls).map(|rank| (rank as f64).powf(-shape.exponent));
        let mut cumulative: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let whole = cumulative.last().copied().unwrap_or(1.0);
        cumulative.iter_mut().for_each(|part| *part /= whole);
        let sizes = (0..shape.urls).map(|_| size(&mut random)).collect();
        Self { shape, cumulative, sizes, random, stranger: shape.urls }
    }

    /// A number (FNV-1a) that two traces have in common that ask for the same, in the same order.
    #[allow(dead_code, reason = "the test has no use for it")]
    pub(crate) fn digest(self, requests: usize) -> u64 {
        let numbers = self.take(requests).flat_map(|Request { url, size }| [url as u64, size as u64]);
        numbers.fold(0xcbf2_9ce4_8422_2325, |sum, number| (sum ^ number).wrapping_mul(0x0100_0000_01b3))
    }

    /// Bytes of all answers together, those of strangers aside.
    #[allow(dead_code, reason = "the test has no use for it")]
    pub(crate) fn bytes(&self) -> usize {
        self.sizes.iter().sum()
    }
}

impl Iterator for Trace {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.random.u32(..1000) < self.shape.strangers {
            self.stranger += 1;
            return Some(Request { url: self.stranger, size: size(&mut self.random) });
        }
        let at = self.random.f64();
        let url = self.cumulative.partition_point(|part| *part < at).min(self.shape.urls - 1);
        Some(Request { url, size: self.sizes.get(url).copied()? })
    }
}

/// By Box and Muller.
fn size(random: &mut fastrand::Rng) -> usize {
    let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
    (MEDIAN * (SIGMA * normal).exp()).clamp(SIZES.0, SIZES.1) as usize
}
