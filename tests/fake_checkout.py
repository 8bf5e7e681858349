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
    entropy = torch.nn.CrossEntropyLoss().cuda()(rest[0], rest[2])
    return entropy + epoch * margin, entropy, sims.sum(), labels.sum()

def acc_i2t2(scores):
    return scores.argmax(1)

def acc_t2i2(scores):
    return scores.argmax(0)
""",
}
"""File -> source, of what the model needs."""

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
