//! Digests, and the cipher of the original's documents.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{
    BlockModeDecrypt, BlockModeEncrypt, KeyIvInit,
    block_padding::{NoPadding, Pkcs7},
};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// `None` for an unknown algorithm.
pub(super) fn hash(algorithm: &str, data: &[u8]) -> Option<Vec<u8>> {
    Some(match algorithm {
        "md5" => Md5::digest(data).to_vec(),
        "sha1" => Sha1::digest(data).to_vec(),
        "sha256" => Sha256::digest(data).to_vec(),
        "sha512" => Sha512::digest(data).to_vec(),
        _ => return None,
    })
}

/// AES in CBC mode with key and IV from the key's text, as `createCipher` of Node did: EVP_BytesToKey with MD5, no
/// salt and one round. Weak, and here because configurations have it.
///
/// All of `data` from the beginning; with padding at its end, without before.
pub(super) fn cipher(
    algorithm: &str,
    key: &[u8],
    data: &[u8],
    decrypts: bool,
    is_end: bool,
) -> Result<Vec<u8>, &'static str> {
    match algorithm {
        "aes-128-cbc" => run::<Aes128, 16>(key, data, decrypts, is_end),
        "aes-192-cbc" => run::<Aes192, 24>(key, data, decrypts, is_end),
        "aes-256-cbc" | "aes256" => run::<Aes256, 32>(key, data, decrypts, is_end),
        _ => Err("Unknown cipher: aes-128-cbc, aes-192-cbc and aes-256-cbc are there"),
    }
}

fn run<A, const KEY: usize>(
    key: &[u8],
    data: &[u8],
    decrypts: bool,
    is_end: bool,
) -> Result<Vec<u8>, &'static str>
where
    cbc::Encryptor<A>: KeyIvInit + BlockModeEncrypt,
    cbc::Decryptor<A>: KeyIvInit + BlockModeDecrypt,
    A: cbc::cipher::BlockCipherEncrypt + cbc::cipher::BlockCipherDecrypt,
{
    const BAD: &str = "bad decrypt";
    let derived = bytes_to_key(key, KEY + 16);
    let (key, iv) = derived.split_at(KEY);
    let bad_key = |_| "Invalid key length";
    if decrypts {
        let cipher = cbc::Decryptor::<A>::new_from_slices(key, iv).map_err(bad_key)?;
        let done = if is_end {
            cipher.decrypt_padded_vec::<Pkcs7>(data)
        } else {
            cipher.decrypt_padded_vec::<NoPadding>(data)
        };
        return done.map_err(|_| BAD);
    }
    let cipher = cbc::Encryptor::<A>::new_from_slices(key, iv).map_err(bad_key)?;
    Ok(if is_end {
        cipher.encrypt_padded_vec::<Pkcs7>(data)
    } else {
        cipher.encrypt_padded_vec::<NoPadding>(data)
    })
}

fn bytes_to_key(key: &[u8], length: usize) -> Vec<u8> {
    let mut derived = Vec::new();
    let mut last = Vec::new();
    while derived.len() < length {
        last = Md5::digest([&last[..], key].concat()).to_vec();
        derived.extend_from_slice(&last);
    }
    derived.truncate(length);
    derived
}
