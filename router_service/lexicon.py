"""The cues by which a message is read: for each label, weights and the cues that carry them, parted by `|`.

3 says it outright, 2 says it in most sentences, 1 leans that way. A cue in ASCII stands for a whole word or phrase, or
with a closing `*` for the start of one; any other cue counts wherever it stands, since Korean glues endings to stems.
Where cues begin at the same place the longest wins, so that a longer cue can take back what a shorter one says
("no rush"); a tone cue is silent on intents and topics, though, and leaves those to the cues inside it. Under MASKS
stand those that say nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final, TypeVar

Cues = dict[str, dict[float, str]]
Votes = dict[str, dict[str, float]]  # for each dimension (tone, intent, topic), the weight of each label's cues
Vote = tuple[str, str, float]  # dimension, label, weight
K = TypeVar("K")

# Between equals the earlier tone wins: the costlier to overlook.
TONE_CUES: Final[Cues] = {
    "urgent": {
        3: "긴급|급해|급합|급한|급히|시급|당장|지금 바로|서버 죽|서버가 죽|서버 다운|서버가 다운|서비스 중단"
        "|전체 장애|장애 발생|장애입니다|장애예요|장애 났|먹통|한시가|촌각|asap|urgent*|emergency|immediately"
        "|right now|right away|prod is down|production is down|site is down|is down|are down|sev1|sev-1|sev 1|p0"
        "|outage|hurry|page the|on fire|time-sensitive|drop everything|해킹|폭주|셧다운|마비|비상|접속이 안"
        "|접속 불가|로그인이 안|서버 내려|서버가 내려|서버가 안|타임아웃이에요|유출|뚫렸|지금 당장|지체 없이|촉박"
        "|help now|critical|whole site|can't log in|cannot log in|security breach|breach*|hacked|compromised"
        "|top priority|returning 500|returning 503|no time|running out of time|before it's too late"
        "|mission-critical|blocking everyone|is crashing|all down|went down|losing money|losing customers|act fast"
        "|show-stopper|showstopper|unreachable|all hands|firing",
        2: "빨리|빨랑|얼른|서둘러|서두르|즉시|바로 확인|바로 연결|죽었어|죽었습|다운됐|다운되|멈췄|멈출 것"
        "|시간이 없|시간 없|분 안에|분 뒤|분 남|시간 안에|시까지|오늘 안에|오늘까지|오늘 중으로|마감|임박|꽉 찼"
        "|꽉 찬|결제가 안|quickly|deadline|in an hour|within the hour|within minutes|minutes left|in ten minutes"
        "|in five minutes|in a few minutes|expires|midnight|by noon|by end of day|by eod|eod|due today|out of disk"
        "|out of memory|for everyone|being charged|data loss|fast as possible|차단해야|중단|폭발|시간 후에|시간 뒤"
        "|분 후|분밖에|분 전|곧 시작|곧바로|바로 좀|바로 봐|서둡|다급|신속|오늘 밤|내일 아침까지|지금도"
        "|최대한 빨리|as soon as|in a minute|minutes from now|minutes to go|one hour|right this|at all!!"
        "|prioritise|prioritize|due in|overdue|time is|escalate",
        1: "지금|빠르게|운영 서버|운영에서|온콜|장애|계속 나|now|today|tonight|production|prod|oncall|backing up",
    },
    "frustrated": {
        3: "답답|짜증|열받|열 받|빡치|빡쳐|빡친|화가|화나|화난|지칩|지쳤|지쳐|지긋지긋|돌겠|미치겠|미쳐버리|환장"
        "|못 해먹|못해먹|어이없|어이가 없|속 터|속터|억울|실망스|너무하|너무합|질린|질렸|어쩌라|어떡하라"
        "|맛이 안 나|맛이 안 납|최악|아오|frustrat*|annoy*|fed up|sick of|tired of|hate|ugh|argh|ridiculous"
        "|unacceptable|infuriat*|driving me crazy|driving me nuts|wtf|done with|had enough|pissed|terrible|awful"
        "|waste of|wasted|give up|wits' end|😡|🤬|😤|😠|👿|엉망|포기하고 싶|때려치|날렸|기운 빠|기운이 빠|힘 빠"
        "|허탈|한숨|어처구니|성질|폭발하|욕 나|욕나|진절머리|지겹|지겨|신물|불쾌|못 참|못참|더는 못|이게 말이"
        "|말이 됩니까|말이 돼|scream|can't work like|exhausting|at my limit|angry|furious|mad at|nightmare|pain in"
        "|painful|unbelievable|this garbage|is garbage|rage|lost my patience|no patience|sick and tired|drives me"
        "|absurd|maddening|what a mess|a mess|싫다|싫어|losing my mind|tried everything",
        2: "또 깨|또 터|또 죽|또 실패|또 바|또 뒤집|또 에러|또 오류|또 안|왜 맨날|왜 자꾸|자꾸|도대체|대체 왜"
        "|제발 좀|안 먹히|안먹히|아직도|몇 번째|번이나|번째예요|번째라|번째입|시간째|하루 종일|하루종일"
        "|누가 이렇게|이럴 거면|이럴거면|망했|젠장|에휴|아 진짜|진짜 왜|안 돼!|broke again|broken again"
        "|fails again|failed again|again and again|every single|for hours|all day|still refuses|still not"
        "|still doesn't|still broken|keeps failing|keeps crashing|keeps breaking|third time|yet again"
        "|nothing i try|nothing works|hanging for|not again|whole afternoon|whole day|seriously|come on|:(|>:("
        "|stupid|crap|damn|sucks|useless|반나절|아무도 안|아무도 답|또 나와|또 났|또 말썽|또 시작|또 멈|또 리셋"
        "|고쳐도|해도 해도|해봐도 안|다 해봤는데|다 해 봤는데|해봤는데도|도무지|일주일째|며칠째|벌써 몇|매번"
        "|번번이|왜 이 모양|이 모양|이따위|말도 없이|무시|hours on|without notice|without telling|without warning"
        "|once more|every time i|every time we|keeps losing|keeps timing|keeps changing|no one listens"
        "|nobody listens|nobody cares|nobody answers|over and over|constantly|for days|for weeks|all morning"
        "|all night|never works|refuses to|ignored|no matter what|wasting|so slow|slow as|세 번째|네 번째"
        "|다섯 번째|몇 번을|nobody bothers|unsaved|sitting there|has been sitting|하필|꼭 이럽",
        1: "안 되는|안 돼|안돼|안됌|안되|또 |하...|하…|ㅡㅡ|ㅠㅠ|실패|깨졌|터졌|터지|broke|broken|failing|fails"
        "|fail|again|still|crash*|honestly|맨날|진짜|losing|mess|slow|stuck",
    },
    "anxious": {
        3: "걱정|불안|떨려|떨리|초조|무서워|무섭습|무섭네|두려|겁나|겁이|긴장|잠이 안|신경이 쓰|신경 쓰여|신경쓰여"
        "|조마조마|막막|큰일|까 봐|까봐|어쩌죠|어떡하죠|어떡해|worr*|anxious*|nervous*|scared|afraid|dread*"
        "|terrified|panic*|uneasy|can't relax|can't sleep|freaking out|losing sleep|concerned|imposter|impostor"
        "|on edge|😰|😨|😱|😥|😟|😬|😓|두렵|불길|심장이|가슴이 뛰|식은땀|눈치 보|눈치가 보|민폐|조바심|염려|근심"
        "|안절부절|잠을 못|잠도 못|잠 못|손이 떨|마음이 무거|마음이 안 놓|마음 졸|자책|주눅|위축"
        "|can't stop thinking|keep thinking|blame me|shaking|sick before|feel sick|stress*|insecure|butterflies"
        "|heart is racing|sweating|paranoid|hesitant|restless|up at night|keeps me up|second-guess*"
        "|what will happen|they'll fire|not good enough|judge me|let everyone down|bad feeling|땀이|건 아니겠",
        2: "떨어진 걸까|떨어지면|망하면|날아가면|혼나|잘못되면|잘못하면|자신이 없|자신 없|괜찮을까|괜찮겠|부담"
        "|what if|not ready|don't feel ready|feel ready|mess up|mess this up|get fired|lose my job|in trouble|fear"
        "|overwhelm*|out of my depth|잘못했을까|뭘 잘못|잘할 수 있을|끝낼 수 있을|해낼 수 있|할 수 있을까"
        "|못하면 어|안 되면 어|실수하면|잘릴|짤릴|찍힐|비난|틀리면|들킬|후회|티 날까|괜히|risky|screw up"
        "|screwed up|break something|breaking something|go wrong|goes wrong|messed up|in over my head|disappoint*",
        1: "ㅠ|ㅜ|면 어떡|실수|hope i|did i|should i be|missed something",
    },
    "confused": {
        3: "헷갈|헛갈|혼란|모르겠|이해가 안|이해가 잘 안|이해 안|이해를 못|이해가 되지|감이 안|감을 못|갈피"
        "|뭐가 뭔지|무슨 말인지|무슨 뜻인지|아리송|confus*|i'm lost|im lost|i am lost|no idea|don't get|dont get"
        "|don't understand|dont understand|do not understand|can't figure|cannot figure|can't tell|makes no sense"
        "|make no sense|doesn't make sense|not sure|unclear|puzzled|baffled|bewildered|huh|wait so|wait, so"
        "|contradict*|misreading|😵|😕|🤷|도통|갸우뚱|혼동|뒤죽박죽|이해하기 어렵|이해하기 힘들|이해가 어렵"
        "|알 수가 없|알수가 없|종잡|어리둥절|뭐가 뭐|뭘 하라는|무엇을 하라는|어디서부터 봐야|over my head"
        "|am i supposed|do i have to choose|went over|can't follow|hard to follow|doesn't add up|lost me"
        "|what does that even|don't see how|mystified|disoriented|conflicting|clueless|beats me|mixed signals"
        "|which one|doesn't exist in my",
        2: "뭘 따라|어느 게|어느게|뭐가 맞|어떤 게 맞|서로 다르|서로 반대|다르게 써|마다 달라|마다 다르|달라서"
        "|반대로 적|왜 갑자기|말이 달|어디가 잘못|어째서|the opposite|or not|different things|am i missing"
        "|mixed up|lost track|내용이 달|얘기가 달|결과가 달|건지 아닌|안인지|는 건지|은 건지|둘 중|어느 쪽|어느 것"
        "|왜 나오는지|기준이 뭔|이 맞는 건|mentions both|says both|supposed to|either way|don't know what"
        "|don't know which|don't know how|do you mean|what do you mean|mean by|same thing|meant to|not clear"
        "|nobody told|heard both|이게 뭐|뭐죠",
        1: "...?|어?|뭐지|이상하|이상해|strange|weird|odd*",
    },
    "playful": {
        4: "ㅋㅋ|ㅎㅎ|lol|lmao|haha*|😂|🤣",
        3: "농담|장난|개그|웃기|웃긴|웃겨|짱|오예|아싸|야호|rofl|hehe*|joke|joking|kidding|yay|woohoo|hooray|funny"
        "|hilarious|😆|😄|🥳|🎉|😜|😝|😹|😁|😎|🤪|출근하기 싫|아재|깜찍|귀엽|꿀잼|웃음|크크|킥킥|헤헤|히히|빵 터"
        "|knock knock|walks into a bar|dad joke|silly|giggle|cheeky|plot twist|achievement unlocked|🎊|🙃|😋|🐛|🦆",
        2: "실화냐|레전드|쏜다|ㄹㅇ|ㅇㅈ|신난|신나|재밌|심심|치킨|떴다|xd|:d|:p|;)|:)|what do you call|rubber duck"
        "|puns|pun|party|hug me|told my|(진지)|칼퇴|불금|월요병|said no one|asking for a friend|pizza|beer|unicorn"
        "|wizard",
        1: "ㅋ|ㅎ|~~|드디어|meme|dance|awesome",
    },
    "collaborative": {
        3: "같이|함께|다 같이|힘을 합|협업|협력|의견을 모|머리를 맞대|페어로|우리 셋|우리 둘|let's|lets|together"
        "|shall we|collaborat*|team up|pair on|pair up|pair with|how about we|why don't we|everyone's input"
        "|co-write|brainstorm*|join forces|join us|공동|워크숍|합시다|해볼까요|해 볼까요|나눠 맡|분담|협의|합쳐"
        "|합치|머리 맞|합동|힘 합|co-own|workshop|joint|jointly|hop on a call|work through|combine our"
        "|combine forces|collab|team effort|sit down with|get together|work on this with|work together|between us"
        "|each other|side by side|divide the work|split up the|partner up|mob programming|pairing|pair programming"
        "|work with you|work with us|work with me",
        2: "나눠서|서로 리뷰|맞춰봐|맞춰 봐|해봐요|해 봐요|정리해 봐|정리해봐|모여|모아서|각 팀|팀끼리|분 계세요"
        "|분 계신가요|의견 주|의견 부탁|공유하고|split the|both teams|our team|with you|your input|your thoughts"
        "|in one room|agree on|in sync|sync with|sync every|as a team|happy to help|get everyone|join|맡아 주실"
        "|맡을 테니|의견 남겨|의견을 주|의견 나눠|의견을 나누|의견 좀|하면 좋겠|열면 좋|어떠세요|어떨까요"
        "|분 있나요|분 있을까|피드백 주|모일까|만나서|논의|조율|합의|맞추|맞춰요|봅시다|주고받|with me|with us"
        "|can we set|can we all|could we all|could we meet|loop in|align*|one proposal|as one|we should|let us"
        "|feedback from|get feedback|who wants|who's in|anyone up for|anyone want|set up a session|share notes"
        "|chip in",
        1: "우리|서로|팀이랑|팀하고|팀과|team|teams|everyone|share|we could|we can",
    },
    "analytical": {
        3: "통계|유의한지|유의미|상관관계|상관계수|표준편차|회귀|이상치|중앙값|가설|검정|코호트|statistic*"
        "|regression|correlat*|standard deviation*|significan*|hypothes*|median|variance|outlier*|cohort*"
        "|trade-off*|tradeoff*|breakdown|controlling for|week over week|year over year|비중|추세|분포|분산|정량"
        "|계산해|예측|모델링|오차|신뢰구간|유의수준|a/b|분석해|quantif*|distribution|trend*|forecast|estimate the"
        "|breaks even|break even|plot|confidence interval|p-value|baseline|bottleneck*|root cause|factor*"
        "|calculate|derive",
        2: "분석|대비|비교|비율|평균|전환율|적중률|해지율|이탈률|클릭률|증가율|감소율|병목|해석|타당|근거|추이"
        "|쪼개|나눠서 원인|원인을|의심하고|기준으로|절반이|analy*|compar*|percentile|average|ratio|conversion"
        "|segment*|regress*|evaluate|measure*|benchmark*|weigh the|points to|dominate|o(n|evidence|sample|churn"
        "|p99|p95|latency|차이를 계산|비례|반비례|증가하는지|감소하는지|그래프|객단가|매출을|매출이|사용량|처리량"
        "|건수|빈도|상위 10|기여도|배로|퍼센트|대략|패턴|구간|doubled|tripled|halved|error rate*|pattern|versus"
        "|per cent|percent|proportion*|throughput|daily active|up front|roughly|mostly on|on average|spike*"
        "|per request|per user|costs|chart|graph|model the|numbers show|per hour|per day|per thousand|diverge*"
        "|converge*|lowest|highest|exhaust|몰립|적은데|많은데|길어졌|짧아졌|전 분기",
        1: "지표|데이터|결과|수치|원인|표본|응답 시간|경합|보고하는|검토|늘었|줄었|떨어졌|늘어|줄어|떨어지|metric*"
        "|data|rate|cost*|less|more|than|cheaper|simpler|smaller|larger|increase*|decrease*|fell|rose|dropped"
        "|given|verify|profile|whereas|quarter",
    },
    "curious": {
        3: "궁금|알고 싶|알고싶|배워보고|배우고 싶|어떤 원리|신기|흥미|curio*|wonder*|interesting|fascinat*"
        "|i'd love to understand|love to learn|love to know|want to learn|how does|how do|what's the difference"
        "|whats the difference|difference between|teach me|is there a reason|🤔|쉽게 알려|알려 줄|알려줄|가르쳐"
        "|찾아보|알아보고 싶|정말 그런가|왜 그런가|그런 건가|비결|호기심|배경이|뭔지 알|tell me more|point of"
        "|i read about|want to know|like to know|keen to|intrigu*|ever wonder*|understand how|understand why"
        "|what makes|why is|why are|how can|how would|what would happen",
        2: "알려주실|알려 주실|설명해|차이가|차이는|차이점|뭐가 다른|어떤 점이|이유가 뭘|이유가 뭐|어떻게 되나"
        "|어떻게 동작|어떻게 작동|어떻게 돌아|원리|혹시|explain|how far|how come|why do|why does|what happens"
        "|tell me about|under the hood|good way|best way|learn|뭔가요|무엇인가|무엇인지|어떻게 서로|어떻게 찾"
        "|그런가요|뭔지|한다던데|하던데|is it true",
    },
    "calm": {
        3: "급하지 않|안 급|천천히|여유|걱정 마|걱정 안|걱정하지|no rush|no hurry|not urgent|nothing urgent"
        "|nothing pressing|not worried|no worries|whenever you",
        2: "감사합니다|고맙|고마워|덕분에|차분|예정대로|특이 사항 없|편하게|thanks|thank you|good morning|hello"
        "|unchanged|as planned|take your time|안녕하세요|반갑|잘 부탁|알겠|확인했|문제없|정상|ready|here is|here's"
        "|done|merged|fyi|sounds good|noted|as requested|as agreed|all good|대로 두고",
        1: "하겠습니다|진행하|공유드립|변경했|완료했|부탁드립|완료되|준비되|바꿔주|추가해|작성해|정리해서|attached"
        "|let me know|please",
    },
}

# What is asked for. Where nothing shows, it is a statement.
INTENT_CUES: Final[Cues] = {
    "seek_advice": {
        3: "조언|어떡하면 좋|어떻게 하면 좋|어떻게 해야|하면 좋을까|하는 게 좋을까|시작하면 좋|추천|advice|advise"
        "|recommend*|should i|should we|what would you|suggestion*|any tips|good way to|best way to",
    },
    "problem_solving": {
        3: "해결해|해결할|해결 방법|해결책|고치|고쳐|디버그|디버깅|원인을 찾|원인이|fix|debug*|troubleshoot*|solve"
        "|workaround|root cause|resolve",
        1.5: "오류|에러|error|traceback|typeerror|valueerror|exception",
    },
    "validation": {
        3: "맞나요|맞는지|맞을까|맞죠|괜찮은지|괜찮을까|검증|검토해|리뷰해 주|리뷰해주|봐주실|is this right"
        "|is that right|is it ok|is it correct|sanity check|correct me|double-check|double check|validate"
        "|review my|look right|make sense to|verify",
    },
    "planning": {
        3: "로드맵|일정을|우선순위|역산|계획|스프린트|마일스톤|할 일|roadmap|milestone*|schedule the|timeline"
        "|prioriti*|plan for|agenda|backlog",
    },
    "learning": {
        3: "배우고|배워|공부|입문|원리|개념|알려주|알려 주|설명해|teach me|learn|lern|tutorial*|understand it"
        "|how does|explain|beginner",
    },
    "reflection": {
        3: "돌아보|돌이켜|되돌아|회고해|깨달|반성|느꼈|배운 것|looking back|in hindsight|hindsight|i realized"
        "|i realised|i've learned|reflecting",
    },
    "request": {
        3: "주세요|주실래|주실 수|주시겠|부탁|해줘|해 줘|해줄래|줄래|봐줘|만들어|바랍니다|주시면|please|pls|plz"
        "|could you|can you|can u|would you|could we get|i need you|need someone|we need a|help me",
    },
    "inquiry": {
        2: "나요|까요|인가요|건가요|은가요|던가요|나여|ㄴ가요|궁금|알고 싶|는 걸까|뭔가요|뭐예요|뭐야|무엇"
        "|wondering|wonder|what's|whats|what is|is there|are there",
        1: "왜|어떻게|어떤|언제|어디|누구|how|why|which|who|when|where|what",
    },
    "expressive": {
        2: "ㅋㅋ|ㅎㅎ|ㅠㅠ|ㅜㅜ|답답|짜증|행복|속상|슬퍼|슬프|기뻐|기쁘|화가|화나|오예|아싸|와 |lol|lmao|haha*|yay"
        "|ugh|argh|omg|wow|i hate|i love|i'm so|so happy|😂|🤣|😄|🥳|🎉|😡|😭|😱|❤",
        1: "감사|고마|ㅠ|ㅜ|ㅋ|ㅎ|진짜|너무|thank*|congrat*|honestly",
    },
}

TOPIC_CUES: Final[Cues] = {
    "data": {
        3: "데이터|통계|지표|전환율|적중률|해지율|이탈률|클릭률|상관관계|회귀|평균|중앙값|이상치|코호트|리텐션"
        "|재방문율|매출|대시보드|data|dataset*|metric*|analytics|statistic*|regression|correlat*|median|percentile"
        "|conversion|churn|retention|revenue|dashboard*|kpi*|ctr|cvr|cohort*|funnel",
        2: "분석|표본|리포트|보고서|수치|비율|그래프|차트|설문|가입자|측정|응답 시간|지연|전주 대비|지난주 대비"
        "|analy*|sample|chart|graph|report|survey|p99|p95|latency|traffic|users|percentage|average|rows|numbers"
        "|segment*|bounce rate|queries",
        1: "결과|쿼리|비교|건 중|sql|csv|excel|query|rate|count|compar*",
    },
    "code": {
        3: "코드|함수|클래스|메서드|변수|버그|빌드|컴파일|아키텍처|리팩터|리팩토|재귀|반복문|인터페이스|모노레포"
        "|파이썬|자바|러스트|비동기|단위 테스트|라이브러리|프레임워크|code|codebase|function*|class|method"
        "|variable|bug|bugs|build|compile*|architecture|refactor*|recursion|interface|python|java|javascript"
        "|typescript|rust|golang|async|unit test*|library|framework|regex|docstring|schema|api|apis|parser"
        "|traceback|typeerror|nonetype|linter|fastapi|grpc|kafka|docker|npm|git",
        2: "배포|서버|커밋|브랜치|테스트|캐시|쿼리|스크립트|롤백|로그|설계|알고리즘|라우터|가비지|해시|스트리밍"
        "|웹소켓|설정 파일|잠금|마이그레이션|커넥션|주석|deploy*|server|commit*|branch*|test|tests|cache|script"
        "|rollback|pipeline|endpoint*|config|index|indexes|locking|migration|garbage collection|tcp|pull request"
        "|pr|repo|stack|database|data race|cron|list|dict|file|merge|heap|memory",
        1: "오류|에러|구현|시스템|개발자|리뷰|error|system|implementation|developer|programmer*|bytes|service",
    },
    "feelings": {
        3: "걱정|불안|답답|짜증|무서|두려|속상|우울|외로|행복|긴장|떨려|지쳤|지칩|지쳐|기분|마음이|감정|서운|worr*"
        "|anxious|nervous|scared|afraid|sad|upset|lonely|happy|feel|feeling*|frustrat*|stress*|burnout|burned out"
        "|tired of|hate|dread*|proud|fed up",
        2: "화가|화나|힘들|힘드|힘이|위로|응원|실망|ㅠㅠ|자신이 없|일할 맛|잠이 안|신경이 쓰|relax|motivat*|mood"
        "|hug|😭|😢|😡|❤",
        1: "ㅠ|ㅜ|ㅋㅋ|고마|감사|lol|haha*|thank*",
    },
    "planning": {
        3: "일정|계획|로드맵|스프린트|마일스톤|우선순위|회의|회고|분기|출시|주차별|할 일|담당자|승인|요구사항"
        "|온보딩|협업|roadmap|schedule*|plan|plans|planning|milestone*|sprint|deadline|agenda|backlog|meeting*"
        "|kickoff|launch|stakeholder*|priorit*|coordinat*|handover|rfc|onboarding",
        2: "팀장|디자인팀|백엔드팀|각 팀|팀이|마감|역할|공유|의견|문서|정책|다음 주|다음 달|이번 주|team|teams"
        "|owner*|decision|sync|quarter*|weeks|ticket|tickets|spec|everyone|managers|draft",
        1: "오전|오후|금요일|목요일|월요일|정리|friday|monday|thursday|tomorrow|next week|client|agree",
    },
}

MASKS: Final = "똑같이|이같이|급격|지금까지|급여|장애인|걱정거리 없|today's|more than one|no more"

# Full-width marks and the ASCII marks they stand for, and the curly apostrophe.
FULL_WIDTH: Final = (
    ("？", "?"),
    ("！", "!"),
    ("。", "."),
    ("．", "."),
    ("，", ","),
    ("、", ","),
    ("；", ";"),
    ("：", ":"),
    ("’", "'"),
)

# An order to begin a sentence with is a request without "please".
IMPERATIVES: Final = (
    "add|break|build|calculate|change|check|compare|convert|create|delete|describe|draft|explain|find|fix|generate|give|help|implement|list"
    "|look|make|move|optimi[sz]e|plan|refactor|remove|rename|review|rewrite|run|send|show|sort|split|summari[sz]e|translate|update|write"
)

_TABLES: Final = {"tone": TONE_CUES, "intent": INTENT_CUES, "topic": TOPIC_CUES}


def _listed() -> Iterator[tuple[str, Vote]]:
    """Every cue as written in the tables, with what it votes for."""
    for dimension, table in _TABLES.items():
        for label, weights in table.items():
            for weight, cues in weights.items():
                yield from ((cue, (dimension, label, weight)) for cue in cues.split("|"))


def _votes_by_cue() -> dict[str, tuple[Vote, ...]]:
    """What each cue votes for; a word and the stem of the same letters vote as one."""
    votes: dict[str, list[Vote]] = {mask: [] for mask in MASKS.split("|")}
    for cue, vote in _listed():
        votes.setdefault(cue.removesuffix("*"), []).append(vote)
    return {cue: (*own, *(_inherited(cue, votes) if own else ())) for cue, own in votes.items()}


def _inherited(cue: str, votes: dict[str, list[Vote]]) -> list[Vote]:
    """In each dimension in which a cue itself is silent, what the longest cue inside it says."""
    settled = {dimension for dimension, _, _ in votes[cue]}
    found: list[Vote] = []
    for inner in _inside(cue):
        new = [vote for vote in votes.get(inner, ()) if vote[0] not in settled]
        settled.update(dimension for dimension, _, _ in new)
        found += new
    return found


def _inside(cue: str) -> list[str]:
    """The parts of a cue, the longest first: runs of words, or of characters where it is not in ASCII."""
    units, space = (cue.split(" "), " ") if cue.isascii() else (list(cue), "")
    spans = combinations(range(len(units) + 1), 2)
    return sorted((space.join(units[start:end]) for start, end in spans), key=len, reverse=True)[1:]


def _is_word(cue: str) -> bool:
    return cue.isascii() and cue[0].isalnum()


def _alternation(cues: Sequence[str]) -> str:
    """Any of the cues, the longest that fits first.

    The engine tries branches one by one, so they form a tree: blocks of 1024 characters, then first characters, then
    what follows, each block behind a look at the next character. A flat list takes many times as long.
    """
    blocks = _grouped(cues, lambda cue: ord(cue[0]) >> 10).values()
    return _guarded(cues, "|".join(_guarded(block, _branches(block)) for block in blocks))


def _guarded(cues: Iterable[str], pattern: str) -> str:
    firsts = "".join(dict.fromkeys(cue[0] for cue in cues))
    return f"(?=[{re.escape(firsts)}])(?:{pattern})"


def _branches(cues: Iterable[str]) -> str:
    longest_first = sorted(cues, key=lambda cue: (-len(cue), cue))
    by_first = _grouped(longest_first, lambda cue: cue[0])
    return "|".join(f"{re.escape(first)}(?:{'|'.join(map(_rest, group))})" for first, group in by_first.items())


def _grouped(cues: Iterable[str], key: Callable[[str], K]) -> dict[K, list[str]]:
    groups: dict[K, list[str]] = {}
    for cue in cues:
        groups.setdefault(key(cue), []).append(cue)
    return groups


def _rest(cue: str) -> str:
    """What follows the first character; a cue that ends in a letter ends a word there, unless it is a stem."""
    return re.escape(cue[1:].removesuffix("*")) + ("(?![a-z0-9])" if _ends_word(cue) else "")


def _ends_word(cue: str) -> bool:
    return cue.isascii() and cue[-1].isalnum()


_VOTES: Final = _votes_by_cue()
_CUES: Final = sorted({cue for cue, _ in _listed()}.union(MASKS.split("|")))
_WORDS: Final = re.compile("(?<![a-z0-9])" + _alternation([cue for cue in _CUES if _is_word(cue)]))
_SUBSTRINGS: Final = re.compile(_alternation([cue for cue in _CUES if not _is_word(cue)]))


def find_votes(lowered: str) -> Votes:
    """What the cues in a text say, the text being in lower case. Each cue that stands in it votes once."""
    votes: Votes = {"tone": {}, "intent": {}, "topic": {}}
    for cue in dict.fromkeys(_WORDS.findall(lowered) + _SUBSTRINGS.findall(lowered)):
        for dimension, label, weight in _VOTES[cue]:
            labels = votes[dimension]
            labels[label] = labels.get(label, 0.0) + weight
    return votes
