# What the test node's machine has, and nothing else: QEMU compiles the faster.
CONFIG_I440FX=y
CONFIG_NVME_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_PCI=y
