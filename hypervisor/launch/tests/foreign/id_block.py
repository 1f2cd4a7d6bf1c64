"""Makes an ID block with sev-snp-measure and prints the digests of both keys."""

import base64
import pathlib
import sys

from sevsnpmeasure.id_block import snp_calc_id_block

folder = pathlib.Path(sys.argv[1])
answer = snp_calc_id_block(
    (folder / "digest").read_bytes(), str(folder / "id.pem"), str(folder / "author.pem")
)
blocks, id_key, author_key = answer.splitlines()
block, authentication = blocks.rstrip(",").split(",")
(folder / "block").write_bytes(base64.b64decode(block.removeprefix("id-block=")))
(folder / "authentication").write_bytes(base64.b64decode(authentication.removeprefix("id-auth=")))
print(base64.b64decode(id_key.removeprefix("id_key_hash: ")).hex())
print(base64.b64decode(author_key.removeprefix("author_key: ")).hex())
