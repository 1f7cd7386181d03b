/* SPDX-License-Identifier: MIT */
/* What a C++ program is made of: templates in templates, inlined into one another. */
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

/* The second one shares types with the first, for dwz. */
#ifndef SYM_UNIT
#define SYM_UNIT 0
#endif

namespace sym
{
template <int unit>
struct key {
	long value;

	bool operator<(const key &other) const
	{
		return value < other.value;
	}
	bool operator==(const key &other) const
	{
		return value == other.value;
	}
};

template <int unit>
struct hash {
	size_t operator()(const key<unit> &k) const
	{
		return static_cast<size_t>(k.value) * 31u;
	}
};

struct shape {
	virtual ~shape() = default;
	virtual long area() const = 0;
};

template <int unit>
struct square : shape {
	long side;

	explicit square(long s) : side(s)
	{
	}
	~square() override = default;
	long area() const override
	{
		if (side < 0)
			throw std::string("negative");
		return side * side;
	}
};

namespace
{
template <typename key_type>
long sum_of(const std::vector<key_type> &keys)
{
	long sum = 0;

	for (const auto &k : keys)
		sum += k.value;
	return sum;
}
} // namespace

template <int unit>
long work(const std::string &text)
{
	using key_type = key<unit>;
	std::map<key_type, std::string> by_key;
	std::unordered_map<key_type, std::vector<key_type>, hash<unit>> by_hash;
	std::vector<std::pair<key_type, std::string>> pairs;
	std::vector<std::function<long(key_type)>> functions;
	std::vector<std::unique_ptr<shape>> shapes;
	std::variant<key_type, std::string> any = key_type{4};
	std::ostringstream out;
	long sum = 0;

	for (char c : text) {
		key_type k{c};

		by_key[k] += c;
		by_hash[k].push_back(k);
		pairs.emplace_back(k, text);
		functions.push_back([k](key_type other) { return k.value + other.value; });
		shapes.push_back(std::make_unique<square<unit>>(c));
	}
	std::sort(pairs.begin(), pairs.end());
	std::stable_sort(pairs.begin(), pairs.end(),
			 [](auto &a, auto &b) { return b.first < a.first; });
	for (auto &f : functions)
		sum += f(key_type{3});
	try {
		for (auto &s : shapes)
			sum += s->area();
	} catch (const std::string &why) {
		sum -= static_cast<long>(why.size());
	}
	if (sum & 1)
		any = text;
	sum += std::visit([](auto &&x) -> long { return sizeof(x); }, any);
	for (auto &entry : by_hash)
		out << entry.first.value << sum_of(entry.second);
	return sum + static_cast<long>(out.str().size() + by_key.size());
}
} // namespace sym

int main(int argc, char **argv)
{
	long sum = 0;

	for (int i = 0; i < argc; i++)
		sum += sym::work<2 * SYM_UNIT>(argv[i]) + sym::work<2 * SYM_UNIT + 1>(argv[i]);
	return static_cast<int>(sum & 1);
}
