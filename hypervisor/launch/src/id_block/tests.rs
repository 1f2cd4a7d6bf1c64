use rstest::rstest;

use super::*;

fn block() -> IdBlock {
    IdBlock::new(Measurement([0xab; 48]), Policy::default()).with_identity([1; 16], [2; 16], 3)
}

fn signed() -> SignedIdBlock {
    block().sign(&IdKey::generate(), Some(&IdKey::generate()))
}

/// The block of snp.md's launch S7 with one CPU: 48 bytes of digest, 32 zeros, and the known end.
#[test]
fn a_block_has_the_known_bytes() {
    let block = IdBlock::new(Measurement([0xec; 48]), Policy::default());
    let mut expected = vec![0xec; 48];
    expected.extend([0; 32]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0]);
    assert_eq!(block.as_bytes(), expected);
}

#[test]
fn what_is_signed_is_verified_after_a_way_through_files() {
    let signed = signed();
    let again = SignedIdBlock::from_bytes(signed.block().as_bytes(), signed.authentication_bytes());
    assert_eq!(again.as_ref(), Ok(&signed));
    assert!(signed.has_author());
}

#[test]
fn an_author_key_is_not_needed() {
    let key = IdKey::generate();
    let signed = block().sign(&key, None);
    assert_eq!(signed.verify(), Ok(()));
    assert_eq!(signed.id_key_digest(), key.public().digest());
    assert_eq!((signed.has_author(), signed.author_key_digest()), (false, None));
}

#[test]
fn signing_twice_gives_the_same_bytes() {
    let key = IdKey::generate();
    assert_eq!(block().sign(&key, Some(&key)), block().sign(&key, Some(&key)));
}

#[test]
fn both_kinds_of_pem_say_the_same_key() {
    let secret = p384::SecretKey::random(&mut p384::elliptic_curve::rand_core::OsRng);
    let sec1 = IdKey::from_pem(&secret.to_sec1_pem(Default::default()).unwrap()).unwrap();
    let pkcs8 = IdKey::from_pem(&sec1.to_pem().unwrap()).unwrap();
    assert_eq!(sec1.public(), pkcs8.public());
    assert_eq!(IdKey::from_pem("no key").unwrap_err(), IdBlockError::PrivateKey);
}

#[rstest]
#[case::digest(0, IdBlockError::BlockSignature)]
#[case::family(50, IdBlockError::BlockSignature)]
#[case::svn(84, IdBlockError::BlockSignature)]
#[case::policy(90, IdBlockError::BlockSignature)]
#[case::version(80, IdBlockError::Version(0))]
fn a_changed_block_is_refused(#[case] place: usize, #[case] error: IdBlockError) {
    let signed = signed();
    let mut bytes = signed.block().as_bytes().to_vec();
    bytes[place] ^= 1;
    assert_eq!(SignedIdBlock::from_bytes(&bytes, signed.authentication_bytes()), Err(error));
}

#[rstest]
#[case::id_algorithm(0, IdBlockError::Algorithm(0))]
#[case::author_algorithm(4, IdBlockError::Algorithm(0))]
#[case::unused(0x8, IdBlockError::Reserved)]
#[case::unused_between(0x644, IdBlockError::Reserved)]
#[case::unused_behind(0xfff, IdBlockError::Reserved)]
#[case::block_signature(0x40, IdBlockError::BlockSignature)]
#[case::block_signature_too_long(0x40 + 48, IdBlockError::BlockSignature)]
#[case::block_signature_rest(0x40 + 144, IdBlockError::BlockSignature)]
#[case::id_curve(0x240, IdBlockError::IdKey)]
#[case::id_point(0x244, IdBlockError::IdKey)]
#[case::id_key_rest(0x240 + 148, IdBlockError::IdKey)]
#[case::key_signature(0x680 + 72, IdBlockError::KeySignature)]
#[case::author_curve(0x880, IdBlockError::AuthorKey)]
#[case::author_point(0x884, IdBlockError::AuthorKey)]
fn changed_authentication_is_refused(#[case] place: usize, #[case] error: IdBlockError) {
    let signed = signed();
    let mut bytes = signed.authentication_bytes().to_vec();
    bytes[place] ^= 1;
    assert_eq!(SignedIdBlock::from_bytes(signed.block().as_bytes(), &bytes), Err(error));
}

#[test]
fn another_key_of_the_same_curve_is_refused() {
    let (signed, stranger) = (signed(), block().sign(&IdKey::generate(), None));
    let mut bytes = signed.authentication_bytes().to_vec();
    bytes[0x240..0x644].copy_from_slice(&stranger.authentication_bytes()[0x240..0x644]);
    assert_eq!(
        SignedIdBlock::from_bytes(signed.block().as_bytes(), &bytes),
        Err(IdBlockError::BlockSignature)
    );
}

#[test]
fn files_of_another_size_are_refused() {
    let signed = signed();
    let (block, authentication) = (signed.block().as_bytes(), signed.authentication_bytes());
    let error = SignedIdBlock::from_bytes(&block[1..], authentication);
    assert_eq!(error, Err(IdBlockError::BlockSize(95)));
    let error = SignedIdBlock::from_bytes(block, &authentication[..100]);
    assert_eq!(error, Err(IdBlockError::AuthenticationSize(100)));
}
