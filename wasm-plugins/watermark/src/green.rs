//! Which tokens are green after which: a keyed, repeatable choice of the vocabulary that plugin and detector share.

/// Bit `t mod 32` of word `t / 32` is set if token `t` is green after the token `previous`. Each token is green with
/// probability 2^−`halvings`.
pub(crate) fn words(key: u32, previous: u32, halvings: u32, count: u32) -> impl Iterator<Item = u32> {
    let seed = mix(mix(key ^ 0x9e37_79b9) ^ previous);
    (0..count).map(move |word| {
        let draws = (0..halvings).map(|draw| mix(seed ^ mix(word.wrapping_mul(8).wrapping_add(draw))));
        draws.fold(u32::MAX, |bits, draw| bits & draw)
    })
}

/// A 32-bit finaliser whose every output bit depends on every input bit (MurmurHash3's, public domain).
fn mix(mut h: u32) -> u32 {
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}
