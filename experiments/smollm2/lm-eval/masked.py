"""
`lm_eval` with one model more, `masked-completions`: local-completions under a mask for each document, made of its question alone, as a user would ask it. What lm-eval sends of
its own accord has the answer in it, and the answers of a document would each be scored under another mask.
"""
from itertools import groupby

import requests
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.openai_completions import LocalCompletionsAPI


@register_model("masked-completions")
class MaskedCompletions(LocalCompletionsAPI):
    def loglikelihood(self, requests, disable_tqdm=False):
        answers = []
        for question, group in groupby(requests, key=lambda request: request.doc["question"]):
            self.mask = self.mask_of(question)
            answers += super().loglikelihood(list(group), disable_tqdm=True)
        return answers

    def mask_of(self, question):
        url = self.base_url.replace("/v1/completions", "/ifprune/mask")
        response = requests.post(url, json={"model": self.model, "instruction": question}, headers=self.header, timeout=self.timeout)
        response.raise_for_status()
        return response.json()["info"]["id"]

    def _create_payload(self, *given, **named):
        return {**super()._create_payload(*given, **named), "mask": self.mask}


if __name__ == "__main__":
    cli_evaluate()
