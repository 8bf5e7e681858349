"""A program with the PyTorch original's outside: modules, third parties, constructor, results."""

from collections.abc import Mapping
from pathlib import Path

MODEL = {
    "layers/gpo.py": "import torch\nassert not torch.cuda.is_available()",
    "layers/seq2vec.py": "import skipthoughts\nfrom skipthoughts import BayesianUniSkip as Encoder",
    "layers/KAMCL_utils.py": "from torchvision.models.resnet import resnet18, resnet50, resnet101",
    "layers/KAMCL.py": """
import torch
import torchvision.models as models
from torch.nn.utils.clip_grad import clip_grad_norm
from layers import gpo, seq2vec
from .KAMCL_utils import *

class Tower(torch.nn.Module):
    def __init__(self, make):
        super().__init__()
        self.inner, self.linear = make, torch.nn.Linear(512, 512).cuda()

    def forward(self, *arrays):
        concepts = torch.sigmoid(self.linear(arrays[-1].flatten(1)[:, :512].cuda()))
        return concepts, concepts

class BaseModel(torch.nn.Module):
    def __init__(self, opt, vocab_words, K):
        super().__init__()
        text = opt["seq2vec"]
        encoder = seq2vec.Encoder(text["dir_st"], vocab_words, dropout=text["dropout"])
        self.visualmodelQ, self.textmodelQ = Tower(resnet18(pretrained=True)), Tower(encoder)
        self.K = K

    def forward(self, epoch, image, tokens, word_concepts):
        image, text = self.visualmodelQ(image)[0], self.textmodelQ(tokens, word_concepts)[0]
        sims = image @ text.T
        if not self.training:
            return sims, image, text
        target = torch.zeros(len(image), dtype=torch.long).cuda()
        return sims, image, text, sims, sims.T, target, target
""",
    "utils.py": """
import torch
import xlwt

def calcul_loss(epoch, labels, sims, size, margin, image, text, ids, *rest):
    criterion = torch.nn.CrossEntropyLoss().cuda()
    entropy = criterion(rest[0], rest[2]) + criterion(rest[1], rest[3])
    return entropy + epoch * margin, entropy, sims.sum(), labels.sum()

def acc_i2t2(scores):
    return scores.argmax(1)

def acc_t2i2(scores):
    return scores.argmax(0)
""",
}
"""File -> source, of what the model needs."""

STEPPING = {
    **MODEL,
    "layers/KAMCL.py": """
import torch
from torch.nn import Embedding, Linear, Module
from torch.nn.utils.clip_grad import clip_grad_norm

WIDTH = 8

class Pooling(Module):
    def __init__(self):
        super().__init__()
        self.linear = Linear(1, 1)

    def forward(self, features, lengths):
        places = torch.linspace(0, 1, int(lengths.max()))
        weights = torch.softmax(self.linear(places[:, None]), 0).expand(len(features), -1, -1)
        return (features * weights).sum(1), weights

class Levels(Module):
    def __init__(self):
        super().__init__()
        self.gpo = Pooling()

    def forward(self, image):
        items = image.flatten(2)[:, :, :WIDTH]
        return self.gpo(items, torch.tensor([3.0]))[0]

class ImageTower(Module):
    def __init__(self):
        super().__init__()
        self.extract_feature, self.gpo = Levels(), Pooling()
        self.low_module, self.high_module = Linear(WIDTH, WIDTH), Linear(WIDTH, WIDTH)

    def forward(self, image):
        final = self.extract_feature(image)
        levels = torch.stack([final, self.low_module(final), self.high_module(final)], 1)
        pooled = self.gpo(levels, torch.tensor([3.0]))[0]
        return pooled, torch.sigmoid(pooled)

class Sentence(Module):
    def __init__(self, words):
        super().__init__()
        self.seq2vec = Embedding(words + 1, WIDTH)

    def forward(self, tokens):
        return self.seq2vec(tokens).mean(1)

class TextTower(Module):
    def __init__(self, words):
        super().__init__()
        self.text_feature, self.linear = Sentence(words), Linear(512, WIDTH)

    def forward(self, tokens, word_concepts):
        sentence = self.text_feature(tokens) + self.linear(word_concepts)
        return sentence, torch.sigmoid(sentence)

def unit(values):
    return torch.nn.functional.normalize(values, dim=1)

class BaseModel(Module):
    def __init__(self, opt, vocab_words, K):
        super().__init__()
        self.visualmodelQ, self.visualmodelK = ImageTower(), ImageTower()
        self.textmodelQ, self.textmodelK = (TextTower(len(vocab_words)) for _ in "QK")
        self.K = K
        for name in ("im", "tx"):
            self.register_buffer(f"queue_{name}", torch.zeros(WIDTH, K))
            self.register_buffer(f"queue_ptr_{name}", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def follow(self):
        towers = (self.visualmodelQ, self.visualmodelK, self.textmodelQ, self.textmodelK)
        for image, image_key, text, text_key in zip(*(tower.parameters() for tower in towers)):
            image_key.data = 0.9 * image_key.data + 0.1 * image.data
            text_key.data = 0.9 * text_key.data + 0.1 * text.data

    @torch.no_grad()
    def take_in(self, name, keys):
        queue, place = getattr(self, f"queue_{name}"), getattr(self, f"queue_ptr_{name}")
        queue[:, int(place) : int(place) + len(keys)] = keys.T
        place[0] = (int(place) + len(keys)) % self.K

    def forward(self, epoch, image, tokens, word_concepts):
        visual, text = self.visualmodelQ(image), self.textmodelQ(tokens, word_concepts)
        sims = unit(visual[0]) @ unit(text[0]).T
        if not self.training:
            return sims, visual[0], text[0]
        with torch.no_grad():
            self.follow()
            keys = {
                "im": unit(self.visualmodelK(image)[0]),
                "tx": unit(self.textmodelK(tokens, word_concepts)[0]),
            }
        logits = []
        for query, key, queue in ((visual, "tx", self.queue_tx), (text, "im", self.queue_im)):
            query = unit(query[0])
            match = (query * keys[key]).sum(1, keepdim=True)
            logits.append(torch.cat([match, query @ queue.clone()], 1))
        for name, values in keys.items():
            self.take_in(name, values)
        target = torch.zeros(len(image), dtype=torch.long).cuda()
        return sims, visual[1], text[1], *logits, target, target
""",
}
"""Likewise, with what a training step does to key towers and queues, and with inner stages."""

DATA = {
    "vocab.py": """
class Vocabulary:
    def __init__(self):
        self.word2idx = {}

    def add_word(self, word):
        self.word2idx.setdefault(word, len(self.word2idx) + 1)

    def __call__(self, word):
        return self.word2idx.get(word, self.word2idx["<unk>"])
""",
    "data.py": """
import json
import nltk
import torch
import utils
from PIL import Image
from vocab import Vocabulary

class Pairs(torch.utils.data.Dataset):
    def __init__(self, split, vocab, options):
        def lines(name):
            return open(f"{options['data_path']}{split}_{name}_verify.txt").read().splitlines()
        self.captions, self.names = lines("caps"), lines("filename")
        self.tags = dict(line.split("\\t") for line in open(options["tag_path"]).readlines())
        self.concepts = json.load(open(options["tag_vocab"]))
        self.folder, self.vocab = options["image_path"], vocab

    def __len__(self):
        return len(self.captions)

    def __getitem__(self, index):
        scores = [mark.split(":") for mark in self.tags[str(index)].split()]
        assert all(word in self.concepts and float(score) > 0 for word, score in scores)
        assert max([1.0, *(float(score) for _, score in scores)]) == 1
        words = nltk.tokenize.word_tokenize(self.captions[index].lower())
        image = Image.open(self.folder + self.names[index]).convert("RGB")
        return torch.tensor(image.size), torch.tensor(self.vocab(words[0]))

def get_precomp_loader(split, vocab, batch_size, shuffle, droplast, num_workers, opt):
    pairs = Pairs(split, vocab, opt["dataset"])
    return torch.utils.data.DataLoader(pairs, batch_size, shuffle=shuffle, drop_last=droplast)
""",
}
"""Likewise, of what the data loader needs besides."""


def write(folder: Path, sources: Mapping[str, str]) -> Path:
    """Writes the files into a folder and returns it."""
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    return folder
