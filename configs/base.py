"""Every field of a KAMCL config, with the values of the paper's RSICD training."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that all data sets share; a data set's file changes what differs."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # of initialisation, augmentation, dropout, order and the validation split
    config.fold = 0  # which random validation split of that seed
    config.num_folds = 10  # trained by --mode=folds
    config.num_epochs = 20  # an epoch shows every training caption once
    config.max_steps = 0  # stops sooner, for a trial run; 0 = no limit
    config.batch_size = 100  # image-caption pairs a step, over all devices
    config.image_size = 256  # pixels, what the encoder sees
    config.embedding_size = 512
    config.num_concepts = 512  # at most; a small data set may have fewer
    config.queue_length = 8000  # keys a modality, at least batch_size
    config.momentum = 0.999  # of the key encoders
    config.momentum_coverage = "all"  # or "release": most of the image key encoder never moves
    config.caption_padding = "masked"  # or "release": captions run on to the batch's longest
    config.temperature = 0.07  # of the contrastive logits
    config.log_every_steps = 10
    config.dtype = "float32"  # or "bfloat16": of the encoders' arithmetic; parameters stay float32
    config.gradient_accumulation = 1  # parts of a batch encoded one after another, to save memory
    config.not_finite = (
        "stop"  # or "skip": leave out an update whose loss or gradient is not finite
    )

    config.data = ml_collections.ConfigDict()
    config.data.name = "rsicd"
    config.data.dir = "data/rsicd"  # what the publisher distributes
    config.data.prepared_dir = ""  # where prepared data go; "" = <dir>/prepared
    config.data.options = ml_collections.ConfigDict()  # the data set's own
    config.data.bad_images = "stop"  # or "skip": go on without images that can't be read
    config.data.split_sizes = "report"  # or "require": stop if they are not the published ones
    config.data.validation = "random"  # or "published"; "auto": published where there is a split
    config.data.validation_fraction = 0.2  # of the images outside of the test split, if random
    config.data.vocabulary_from = "train"  # or "train_and_test", as the release does
    config.data.min_word_count = 5
    config.data.pad_concepts = False  # True: num_concepts wide even where the words are fewer
    config.data.labels_by = "image"  # or "position": the release's, mostly of other images
    config.data.residency = "auto"  # or "device", "host": where the training split lies
    config.data.max_tokens = 0  # longer captions and queries are cut; 0: none

    config.concepts = ml_collections.ConfigDict()
    config.concepts.min_repeats = 2  # an image's captions must repeat a word as often
    config.concepts.stop_words = "english"  # no concepts; or "none", or a file, a word a line
    config.concepts.lemmatize = False  # True: forms of a word are one concept (needs simplemma)

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = -1  # devices, or groups of fsdp devices, that split a batch; -1 = all
    config.mesh.fsdp = 1  # devices in a group: it splits a batch, too, and shares out parameters
    config.mesh.fsdp_min_size = 2**16  # entries; smaller tensors stay whole on every device
    config.mesh.queue = "replicated"  # or "sharded": over all devices, for long queues

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.keep = 2  # latest ones, besides the best
    config.checkpoint.every_steps = 0  # also between the ends of epochs; 0 = only there

    config.augmentation = ml_collections.ConfigDict()
    config.augmentation.resize = 0  # pixels before the crop; 0 = image_size * 278 / 256
    config.augmentation.max_rotation = 90.0  # degrees

    config.image_encoder = ml_collections.ConfigDict()
    config.image_encoder.depth = 18  # ResNet-18, 34, 50 or 101
    config.image_encoder.width = 64  # channels of its first stage
    config.image_encoder.rematerialise = False  # True: recompute blocks in the backward pass
    config.image_encoder.pooling_kernel = "counting"  # or "pallas": for one GPU, not measured yet
    config.image_encoder.pretrained = ""  # torchvision's .pth or .safetensors; "" = random weights
    config.image_encoder.module = ""  # "package.module:Name" of another; "" = as above
    config.image_encoder.options = ml_collections.ConfigDict()  # that other one's own

    config.text_encoder = ml_collections.ConfigDict()
    config.text_encoder.word_width = 620
    config.text_encoder.hidden_width = 2400
    config.text_encoder.dropout = 0.25
    config.text_encoder.pretrained = ""  # folder of the skip-thoughts files; "" = random weights
    config.text_encoder.module = ""  # "package.module:Name" of another; "" = as above
    config.text_encoder.options = ml_collections.ConfigDict()  # that other one's own

    config.loss = ml_collections.ConfigDict()
    config.loss.margin = 0.2
    config.loss.negatives = "queue"  # or "batch": the other keys of the batch, no queue
    config.loss.triplet_weight = 1.0
    config.loss.contrastive_weight = 10.0
    config.loss.alignment_weight = 10.0  # in step 2 of the schedule
    config.loss.mask_false_negatives = False  # True: keys of a query's image or text are none
    config.loss.extra_terms = ml_collections.ConfigDict()  # name -> function, weight

    config.schedule = ml_collections.ConfigDict()
    config.schedule.alignment_from_epoch = 11  # first epoch of step 2, counted from 0

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.learning_rate = 2e-4
    config.optimizer.epsilon = 1e-8  # of Adam
    config.optimizer.clip_norm = 0.0  # global gradient norm; 0 = no clipping
    config.optimizer.decay_factor = 0.5
    config.optimizer.decay_every_epochs = 10

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.batch_size = 100  # images or captions encoded at once, over all devices
    config.evaluation.ties = "expected"  # over random orders of tied scores; or "argsort"

    return config
